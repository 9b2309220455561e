"""What a busy tenant costs a quiet one, over HTTP: 1 noisy and 1 quiet, and 1 noisy and 7 quiet tenants.

    python benchmarks/serving/fairness.py                     5 minutes
    python benchmarks/serving/fairness.py --seconds 3 --quick does everything work

The noisy tenant keeps 200 requests waiting; each quiet one sends one about every 300 ms. Measured in turn on
one server: the quiet tenants alone, beside the noisy one, and first come, first served (the control: all use
the noisy tenant's key, so that one line serves them). Each has a key, a weight of 1 and a task of its own.
Throughput counts the answers of all, beside the noisy one over first come, first served. Last, two tenants of
weights 1 and 3 that both keep 100 waiting. The server runs on one core and the sender on another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from figures import Figure, ceiling, line
from machine import machine, versions
from open_loop import Shot
from tenants import Tenants, answers_within, bodies, latency_ms

ROOT = Path(__file__).parents[2]
EVERY_SECONDS, WAITING, QUIET = 0.3, 200, (1, 7)
NEW_TOKENS = 16
FORGOTTEN_SECONDS = 11.0
"""After so long the engine has forgotten the quiet tenants."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("embedded"))
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run")
    parser.add_argument("--quiet", type=int, nargs="+", default=list(QUIET), help="numbers of quiet tenants")
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS, help="new tokens of an answer, at most")
    parser.add_argument(
        "--every", type=float, default=EVERY_SECONDS, help="seconds between a quiet tenant's requests"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke check: keep no result")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache", help="compile cache"
    )
    arguments = parser.parse_args()
    every, cores = machine(), sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        os.sched_setaffinity(0, {cores[0]})  # the server is born with it
        tenants = Tenants(Path(name), arguments.model, arguments.cache, {"tuning_enabled": False})
        os.sched_setaffinity(0, {cores[-1]})
        try:
            figures, detail = measure(tenants, arguments)
        finally:
            tenants.close()
    sys.stdout.write("".join(f"{line(figure)}\n" for figure in figures))
    now = datetime.now(UTC)
    content = {
        "what": "fairness",
        "date": f"{now:%Y-%m-%d}",
        "machine": every,
        "versions": versions(Path(sys.executable)),
        "model": arguments.model.name,
        "seconds": arguments.seconds,
        "every_seconds": arguments.every,
        "new_tokens": arguments.tokens,
        "figures": [figure.as_json() for figure in figures],
        **detail,
    }
    text = json.dumps(content, indent=1) + "\n"
    sys.stdout.write(text)
    if not arguments.quick:
        (ROOT / f"benchmarks/results/{now:%Y-%m-%d}-{every['name']}-fairness.json").write_text(text)


def measure(tenants: Tenants, asked: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Everything: figures, and what was seen."""
    seconds, quiet, tokens = asked.seconds, asked.quiet, asked.tokens
    for name in ("noisy", "heavy", *(f"quiet{n}" for n in range(max(quiet)))):
        tenants.add(name, 3.0 if name == "heavy" else 1.0)
    figures, detail = [], {}
    asyncio.run(_beside(tenants, 2.0, max(quiet), asked, "beside"))  # prompts to the device
    for count in quiet:
        told = {}
        for run in ("alone", "beside", "one line"):
            if run == "one line":
                time.sleep(FORGOTTEN_SECONDS)
            told[run] = _told(asyncio.run(_beside(tenants, seconds, count, asked, run)), seconds)
        alone, beside, one_line = told["alone"], told["beside"], told["one line"]
        name = f"1 noisy, {count} quiet"
        ratio = beside["quiet_ms"]["p99"] / alone["quiet_ms"]["p99"]
        figures += [
            ceiling(f"{name}: quiet p99 over alone", ratio, 1.5),
            Figure(f"{name}: one line, quiet p99", one_line["quiet_ms"]["p99"] / alone["quiet_ms"]["p99"]),
            Figure(f"{name}: throughput", beside["answers"] / one_line["answers"], goal=0.97),
        ]
        detail[name] = told
        sys.stderr.write(f"{name}: {json.dumps(told)}\n")
    shares = asyncio.run(_weights(tenants, seconds / 3, tokens))
    figures.append(Figure("tokens of weight 3 over weight 1", shares[1] / shares[0]))
    return figures, detail | {"tokens_by_weight": {"1": shares[0], "3": shares[1]}}


async def _beside(
    tenants: Tenants, seconds: float, quiet: int, asked: argparse.Namespace, run: str
) -> tuple[list[Shot], list[Shot]]:
    """Shots of the quiet tenants, and of the noisy one."""
    tokens = asked.tokens
    names = ["noisy" if run == "one line" else f"quiet{n}" for n in range(quiet)]
    senders = [
        tenants.sender([tenants.payload(name, body) for body in bodies("own", [tokens], tokens)], seed)
        for seed, name in enumerate(names)
    ]
    lengths = [least for least in range(2, tokens + 1) for _ in range(4)]
    payloads = [tenants.payload("noisy", body) for body in bodies("own", lengths, tokens)]
    loud = tenants.sender(payloads, 99)
    waits = [sender.regular(asked.every, seconds) for sender in senders]
    noise = [] if run == "alone" else [loud.closed_loop(WAITING, seconds)]
    shots = await asyncio.gather(*waits, *noise)
    for sender in (*senders, loud):
        sender.close()
    waited, noise_made = shots[:quiet], shots[quiet:]
    return [shot for each in waited for shot in each], [shot for each in noise_made for shot in each]


def _told(shots: tuple[list[Shot], list[Shot]], seconds: float) -> dict[str, Any]:
    quiet, noisy = shots
    # What came in the first second met a queue that was not full yet.
    settled = [shot for shot in quiet if shot.due >= min(1.0, seconds / 4)]
    return {
        "quiet_ms": latency_ms(settled),
        "answers": answers_within(quiet, seconds) + answers_within(noisy, seconds),
    }


async def _weights(tenants: Tenants, seconds: float, tokens: int) -> list[int]:
    """Tokens that tenants of weights 1 and 3 got while both had requests waiting."""
    senders = [
        tenants.sender([tenants.payload(name, body) for body in bodies("own", [tokens], tokens)], seed)
        for seed, name in enumerate(("noisy", "heavy"))
    ]
    shots = await asyncio.gather(*(sender.closed_loop(WAITING // 2, seconds) for sender in senders))
    for sender in senders:
        sender.close()
    return [answers_within(each, seconds) * tokens for each in shots]


if __name__ == "__main__":
    main()
