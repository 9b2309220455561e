"""What overload does: open-loop load of 0.5 to 10 times the capacity over HTTP, with deadlines and without.

    python benchmarks/serving/overload.py            the base model that ships: 18 minutes
    python benchmarks/serving/overload.py --model shared/models/flan-t5-small-title
    python benchmarks/serving/overload.py --seconds 5 --loads 1 10 --quick   does everything work

The server runs on one core and the sender on another, for the capacity and for the overload alike. Capacity
is what a closed loop gets, measured before and after each load: a load is compared with the mean of the two,
because a shared machine's speed drifts. Goodput is answers within the deadline (a second) from when their
request was due, a second of sending. After each overload half the capacity is offered: how long until
requests are answered as usual. Last, the Python client with its retries, at twice the capacity.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from figures import Figure, ceiling, line, spread_ms
from machine import machine, versions
from open_loop import Sender, Shot, payload
from served import Served

from chorus import AsyncClient
from chorus.load import LoadSpec, report_of, run_load
from chorus.load.inputs import SENTENCES
from chorus.load.outcomes import Recorder

ROOT = Path(__file__).parents[2]
TASKS, PROMPT_ROWS, NEW_TOKENS = 8, 20, 4
RECOVERY_SECONDS = 10.0
MODES = ("deadline", "plain")


def main() -> None:
    arguments = _arguments()
    every = machine()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the sender")
    with tempfile.TemporaryDirectory() as name:
        os.sched_setaffinity(0, {cores[0]})  # the server is born with it
        settings = {"access_log": True, "log_level": "info", "tuning_enabled": False}
        server = Served(Path(name), arguments.model, arguments.cache, settings)
        os.sched_setaffinity(0, {cores[1]})
        sys.stderr.write(f"server ready at {server.url}\n")
        try:
            result = Overload(server, arguments).run()
        finally:
            server.close()
    figures = result.pop("figures")
    sys.stdout.write("".join(f"{line(figure)}\n" for figure in figures))
    content = {
        "what": "overload",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": every,
        "versions": versions(Path(sys.executable)),
        "quick": arguments.quick,
        "model": arguments.model.name,
        "deadline_seconds": arguments.deadline,
        "figures": [figure.as_json() for figure in figures],
        **result,
    }
    target = arguments.out or _target(arguments, every)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n")
    sys.stdout.write(f"\nkept in {target}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("embedded"))
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument(
        "--deadline", type=float, default=1.0, help="seconds; some passes of the encoder must fit into it"
    )
    parser.add_argument(
        "--loads", type=float, nargs="+", default=[0.5, 1, 2, 5, 10], help="times the capacity"
    )
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--in-flight", type=int, default=48, help="of the closed loop")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke check: keep no result beside the others"
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache", help="compile cache"
    )
    parser.add_argument("--out", type=Path, help="result file")
    return parser.parse_args()


def _target(arguments: argparse.Namespace, where: dict[str, object]) -> Path:
    if arguments.quick:
        return ROOT / ".chorus" / "overload-quick.json"
    what = "overload" if arguments.model.name == "embedded" else f"{arguments.model.name}-overload"
    return (
        ROOT
        / "benchmarks"
        / "results"
        / f"{datetime.now(UTC).date().isoformat()}-{where['name']}-{what}.json"
    )


class Overload:
    """The measurements, one after the other, on one server."""

    def __init__(self, server: Served, arguments: argparse.Namespace) -> None:
        self._server, self._arguments = server, arguments
        address = urlsplit(server.url)
        self._host, self._port = str(address.hostname), int(address.port or 0)
        width = server.http.get("/v1/model").json()["config"]["d_model"]
        for number in range(TASKS):
            values = np.random.default_rng(number).normal(0, 5, (PROMPT_ROWS, width)).astype(np.float32)
            server.upload(f"task{number}", values)

    def run(self) -> dict[str, Any]:
        """Everything, with `figures`."""
        seconds = self._arguments.seconds
        asyncio.run(self._closed(min(5.0, seconds)))  # prompts to the device, and whatever else is done once
        capacities = [asyncio.run(self._closed(seconds))]
        figures, loads = [], {}
        for mode in self._arguments.modes:
            for load in self._arguments.loads:
                told = asyncio.run(self._offer(mode, load, capacities[-1]))
                capacities.append(asyncio.run(self._closed(seconds)))
                capacity = sum(capacities[-2:]) / 2
                told["capacity"] = round(capacity, 2)
                loads[f"{mode}, {load:g} x"] = told
                sys.stderr.write(f"{mode}, {load:g} x: {json.dumps(told)}\n")
                figures += _figures(mode, load, told, capacity)
        capacity = sum(capacities) / len(capacities)
        figures.insert(0, Figure("capacity, closed loop", capacity, "requests/s"))
        retries = asyncio.run(self._clients(2 * capacity))
        figures.append(ceiling("retries of clients at 2 x", retries["share"], 0.2))
        return {
            "figures": figures,
            "capacities": [round(each, 3) for each in capacities],
            "loads": loads,
            "clients": retries,
        }

    def _payloads(self, mode: str) -> list[bytes]:
        extra = {"deadline_seconds": self._arguments.deadline} if mode == "deadline" else {}
        return [
            payload(self._host, self._port, "/v1/generate", _body(number) | extra)
            for number in range(TASKS * len(SENTENCES))
        ]

    async def _closed(self, seconds: float) -> float:
        sender = Sender(self._host, self._port, self._payloads("plain"))
        shots = await sender.closed_loop(self._arguments.in_flight, seconds)
        sender.close()
        if any(shot.status != 200 for shot in shots):
            raise SystemExit(f"a closed loop was refused: {Counter(shot.status for shot in shots)}")
        return len(shots) / max(shot.due + shot.seconds for shot in shots)

    async def _offer(self, mode: str, load: float, capacity: float) -> dict[str, Any]:
        sender = Sender(self._host, self._port, self._payloads(mode))
        seconds, deadline = self._arguments.seconds, self._arguments.deadline
        phases = [(load * capacity, seconds), (0.5 * capacity, RECOVERY_SECONDS)]
        with _CpuSeconds(self._server.pid) as used:
            shots = await sender.open_loop(phases[:1] if mode == "plain" else phases, drain=90.0)
        sender.close()
        whole = max(shot.due + shot.seconds for shot in shots)
        return (
            _told([shot for shot in shots if shot.due < seconds], seconds, deadline)
            | {"server_cores": round(used.seconds / whole, 3)}
            | _recovered([shot for shot in shots if shot.due >= seconds], seconds, deadline)
        )

    async def _clients(self, rate: float) -> dict[str, Any]:
        spec = LoadSpec(
            tasks=tuple(f"task{number}" for number in range(TASKS)),
            inputs=SENTENCES,
            settings={"max_new_tokens": NEW_TOKENS, "deadline_seconds": self._arguments.deadline},
            arrivals="open",
            rate_per_second=rate,
            concurrency=1024,
            duration_seconds=self._arguments.seconds,
        )
        recorder = Recorder()
        async with AsyncClient(self._server.url, max_connections=spec.concurrency) as client:
            await run_load(client, spec, recorder)
        report = report_of(spec, recorder, client.statistics)
        share = report.retries / max(1, report.sent)
        return {"share": round(share, 4), **report.as_json()}


def _body(number: int) -> dict[str, Any]:
    return {
        "task": f"task{number % TASKS}",
        "input": SENTENCES[number % len(SENTENCES)],
        "max_new_tokens": NEW_TOKENS,
        "min_new_tokens": NEW_TOKENS,
    }


def _told(shots: Sequence[Shot], seconds: float, deadline: float) -> dict[str, Any]:
    answered = [shot for shot in shots if shot.status == 200]
    refused = [shot for shot in shots if shot.status in (429, 503)]
    good = [shot for shot in answered if shot.seconds <= deadline]
    whole = max((shot.due + shot.seconds for shot in answered), default=seconds)
    return {
        "offered": round(len(shots) / seconds, 2),
        "answered": round(len(answered) / max(seconds, whole), 2),
        "goodput": round(len(good) / seconds, 2),
        "statuses": dict(sorted(Counter(str(shot.status) for shot in shots).items())),
        "answer_ms": spread_ms([shot.seconds for shot in answered]) if answered else None,
        "refusal_ms": spread_ms([shot.seconds for shot in refused]) if refused else None,
        "refused_without_retry_after": sum(not shot.retry for shot in refused),
        "sent_late_ms": spread_ms([shot.late for shot in shots]),
    }


def _recovered(after: Sequence[Shot], begin: float, deadline: float) -> dict[str, Any]:
    """Seconds after the overload until every later request was answered in time."""
    bad = [shot.due - begin for shot in after if shot.status != 200 or shot.seconds > deadline]
    return {"recovery_seconds": round(max(bad, default=0.0), 3)} if after else {}


def _figures(mode: str, load: float, told: dict[str, Any], capacity: float) -> list[Figure]:
    over = load >= 5
    name = f"{mode}, {load:g} x"
    which = "goodput" if mode == "deadline" else "answered"
    figures = [Figure(f"{name}: {which} over capacity", told[which] / capacity, goal=0.9 if over else None)]
    if told["refusal_ms"] is not None:
        figures.append(ceiling(f"{name}: refusals, p99", told["refusal_ms"]["p99"], 50.0, "ms"))
        without = float(told["refused_without_retry_after"])
        figures.append(ceiling(f"{name}: refusals without Retry-After", without, 0.0, ""))
    if "recovery_seconds" in told:
        figures.append(ceiling(f"{name}: back to normal after", told["recovery_seconds"], 5.0, "s"))
    return figures


class _CpuSeconds:
    """Processor time of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self.seconds = 0.0

    def _used(self) -> float:
        ticks = self._stat.read_text().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> _CpuSeconds:
        self.seconds = -self._used()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += self._used()


if __name__ == "__main__":
    main()
