"""How long the console's pages take and weigh, with ten thousand tasks.

    python benchmarks/console.py                   about three minutes; writes a result
    python benchmarks/console.py --tasks 200 --rounds 5    a small trial

A real server of the base that ships, over HTTP, one caller with a session. The time is the server's, from the
first byte of a request to the last of its answer, on a connection that is open. Limits: a page 100 ms, the
list of tasks, also by prefix and by label, 50 ms; a page with all that it loads 150 kB.
Writes benchmarks/results/DATE-MACHINE-console.json, unless --tasks is given.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import machine, versions

from prompts_store import PromptStore
from prompts_store.testing import example_prompt
from tests.end_to_end.served import Served

ROOT = Path(__file__).parents[1]
TASKS, ROUNDS = 10_000, 40
LISTS = ("/console/tasks", "/console/tasks?prefix=task-00777", "/console/tasks?label=yes")
PAGES = (
    "/console/tasks?more=1",
    "/console/tasks/default/sentiment",
    "/console/tasks/default/sentiment/compare?version=1&version=3",
    "/console/try",
    "/console/tune",
    "/console/interpret?task=default/sentiment",
    "/console/jobs",
    "/console/jobs/evaluate",
    "/console/jobs/batch",
    "/console/ensembles/default/sentiment-vote",
    "/console/tenants/keys",
    "/console/tenants/usage",
    "/console/tenants/audit",
    "/console/operations",
)
_CSRF = re.compile(r'name="csrf" content="([0-9a-f]{64})"')
_LOADS = re.compile(r'(?:href|src)="(/console/files/[^"]+)"')


def publish(folder: Path, tasks: int) -> None:
    """Tasks of one version each, which share a few prompts."""
    prompts = [example_prompt(seed, labels=("yes", "no")) for seed in range(8)]
    store = PromptStore.open(folder)
    for number in range(tasks):
        store.publish("default", f"task-{number:05d}", *prompts[number % len(prompts)])
    store.close()


def measured(browser: httpx2.Client, path: str, rounds: int) -> dict[str, float]:
    """Milliseconds of a page, and bytes of it with all that it loads."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        answer = browser.get(path, headers={"HX-Request": "true"} if "more=1" in path else {})
        seconds.append(time.perf_counter() - begun)
        assert answer.status_code == 200, (path, answer.status_code)
    loaded = {each.partition("?")[0] for each in _LOADS.findall(answer.text)}
    size = len(answer.content) + sum(len(browser.get(each).content) for each in sorted(loaded))
    times = sorted(1000 * each for each in seconds[1:])  # the first finds nothing in any cache
    return {"median_ms": statistics.median(times), "p95_ms": times[int(0.95 * len(times))], "bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and weigh the console's pages.")
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    tasks = given.tasks or TASKS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publish(folder, tasks)
        (secret := folder / "operator.key").write_text("an-operator-of-this-machine")
        shapes = {"shapes": "input_lengths=64 batch_rows=4 blocks=64x32x4 score_buckets=4x64"}
        with Served(folder, operator_key_file=secret, layout="scanned", **shapes) as server:
            server.wait_ready()
            with httpx2.Client(base_url=server.http.base_url, timeout=60) as browser:
                found = _CSRF.search(browser.get("/console/sign-in").text)
                assert found is not None
                browser.post("/console/sign-in", data={"key": secret.read_text(), "csrf": found[1]})
                pages = {path: measured(browser, path, given.rounds) for path in LISTS + PAGES}
    for path, each in pages.items():
        limit = 50 if path in LISTS else 100
        mark = " " if each["median_ms"] <= limit and each["bytes"] <= 150_000 else "!"
        times = f"{each['median_ms']:7.1f} ms  p95 {each['p95_ms']:7.1f}"
        print(f"{mark} {path:64} {times}  {each['bytes']:,} bytes")
    result: dict[str, Any] = {"what": "console", "tasks": tasks, "rounds": given.rounds, "pages": pages}
    if given.tasks is None:
        result |= {"machine": machine(), "versions": versions(Path(sys.executable))}
        result["date"] = datetime.now(UTC).isoformat()
        day = datetime.now(UTC).date().isoformat()
        target = ROOT / "benchmarks" / "results" / f"{day}-{machine()['name']}-console.json"
        target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
