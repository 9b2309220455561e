"""A batch of many lines: its memory, its rate beside the engine's own, and what it costs who asks meanwhile.

    python benchmarks/batches.py                      20,000 lines, about two minutes
    python benchmarks/batches.py --rows 1000000       a million, some 42 minutes

The store, the server, the runner of jobs and the scheduler are those that serve; only the device is a sleep
of `--step-ms` for four rows, beside the host, so that the rate is known and leaves the processor to what is
measured. The engine alone is given the same requests, ready made, as many at a time as a batch has under way.
Interactive requests come over HTTP every 100 ms: by turns one whose labels are scored in one step, and one
that generates eight tokens, each in a step of its own. Prints JSON, with the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import machine

from chorus_server.api.batch.work import LINES_AT_ONCE
from chorus_server.api.jobs.attempt import BLOCKS_AT_ONCE
from chorus_server.api.lifecycle import spare_collections
from chorus_server.engine.requests import Origin, ScoreRequest
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.jobs.records import OVER
from tests.server.api.api_harness import ApiServer, train_vocabulary

LABELS = ("no", "yes")
EVERY_SECONDS = 0.1
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "one step": ("/v1/classify", {"labels": LABELS}),
    "eight tokens": ("/v1/generate", {"max_new_tokens": 8}),
}
_PAGE = 4096


class Device:
    """Takes one step after the other, each as long, while the host goes on.

    Attributes:
        free: when it is done with all steps.
        due: when each step is done that was not collected yet.
    """

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.free = 0.0
        self.due: deque[float] = deque()

    def dispatched(self, _: object) -> None:
        self.free = max(time.monotonic(), self.free) + self.step_seconds
        self.due.append(self.free)

    def collected(self, _: object) -> None:
        time.sleep(max(0.0, self.due.popleft() - time.monotonic()))


def text_of(row: int) -> str:
    return f"good film {row}"


def lines(rows: int) -> Iterator[bytes]:
    for row in range(rows):
        body = {"task": None, "input": text_of(row), "labels": LABELS}
        line = {"custom_id": str(row), "method": "POST", "url": "/v1/classify", "body": body}
        yield json.dumps(line).encode() + b"\n"


def engine_alone(server: ApiServer, vocabulary: Vocabulary, rows: int) -> float:
    """Rows a second."""
    targets = tuple((*vocabulary.encode(label), vocabulary.eos_id) for label in LABELS)
    inputs = [((*vocabulary.encode(text_of(row)), vocabulary.eos_id),) for row in range(rows)]
    made = [
        ScoreRequest(Origin(f"alone.{row}", priority="batch"), inputs[row], targets) for row in range(rows)
    ]
    under_way: deque[Any] = deque()
    started = time.perf_counter()
    for first in range(0, rows, LINES_AT_ONCE):
        if len(under_way) >= LINES_AT_ONCE * BLOCKS_AT_ONCE:
            for _ in range(LINES_AT_ONCE):
                under_way.popleft().wait(60)
        under_way += server.engine.submit_all(made[first : first + LINES_AT_ONCE])
    while under_way:
        under_way.popleft().wait(60)
    return rows / (time.perf_counter() - started)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


@contextmanager
def beside(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Does `look` every so often on a thread of its own."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def asked(server: ApiServer, found: dict[str, list[float]]) -> Iterator[None]:
    """Interactive requests meanwhile; their milliseconds by what they ask."""
    turns = cycle(ASKED.items())
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        text = long_answered(client)

        def ask() -> None:
            kind, (path, body) = next(turns)
            started = time.perf_counter()
            client.post(path, json={"task": None, "input": text, **body}).raise_for_status()
            found.setdefault(kind, []).append(1000 * (time.perf_counter() - started))

        with beside(ask, EVERY_SECONDS):
            yield


def long_answered(client: httpx2.Client) -> str:
    """A text whose answer does not end before it is cut off."""
    for number in count():
        text = f"bad movie {number}"
        body = {"task": None, "input": text, **ASKED["eight tokens"][1]}
        (answer,) = client.post("/v1/generate", json=body).raise_for_status().json()["results"]
        if answer["finish_reason"] == "length":
            return text
    raise AssertionError


def run(server: ApiServer, file: str) -> float:
    """Seconds that a batch takes."""
    started = time.perf_counter()
    job = server.post("/v1/batches", {"file": file, "endpoint": "/v1/classify"}).json()["id"]
    while server.store.get_job("default", job).status not in OVER:
        time.sleep(0.2)
    ended = server.store.get_job("default", job)
    if ended.status != "succeeded" or ended.result["failed"]:
        raise RuntimeError(f"the batch {ended.status}: {ended.error}")
    return time.perf_counter() - started


def figures(milliseconds: list[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(milliseconds, at)), 2) for name, at in (("p50", 50), ("p99", 99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--step-ms", type=float, default=10.0)
    parser.add_argument("--alone-rows", type=int, default=4_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        vocabulary = Vocabulary.load(train_vocabulary(folder), extra_ids=4)
        step = given.step_ms / 1000
        with ApiServer(folder / "data", vocabulary) as server:
            device = Device(step)
            server.executor.on_dispatch, server.executor.on_collect = device.dispatched, device.collected
            spare_collections()  # as a server does that has started
            alone = engine_alone(server, vocabulary, given.alone_rows)
            quiet: dict[str, list[float]] = {}
            with asked(server, quiet):
                time.sleep(30)
            with (folder / "lines.jsonl").open("wb") as file:
                file.writelines(lines(given.rows))
            with (folder / "lines.jsonl").open("rb") as file:
                answer = server.http.post("/v1/files", files={"file": ("lines.jsonl", file)})
            start_engine_jobs(server.services)
            memory = [resident_bytes()]

            def look() -> None:
                server.executor.plans.clear()  # it keeps them, for tests
                memory.append(resident_bytes())

            with beside(look, 0.2):
                seconds = run(server, answer.json()["id"])
            with (folder / "lines.jsonl").open("wb") as file:
                file.writelines(lines(min(given.rows, 12_000)))
            with (folder / "lines.jsonl").open("rb") as file:
                answer = server.http.post("/v1/files", files={"file": ("lines.jsonl", file)})
            busy: dict[str, list[float]] = {}
            with asked(server, busy):
                run(server, answer.json()["id"])
    rate = given.rows / seconds
    found = {
        "machine": machine(),
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "rows": given.rows,
        "step_ms": given.step_ms,
        "rows_a_second": {"engine alone": round(alone, 1), "batch": round(rate, 1)},
        "slower_percent": round(100 * (1 - rate / alone), 1),
        "memory_growth_mib": round((max(memory) - memory[0]) / 2**20, 1),
        "memory_growth_in_the_second_half_mib": round(
            (max(memory[len(memory) // 2 :]) - memory[len(memory) // 2]) / 2**20, 1
        ),
        "interactive": {
            kind: {
                "alone_ms": figures(quiet[kind]),
                "beside_a_batch_ms": figures(busy[kind]),
                "p99_ratio": round(np.percentile(busy[kind], 99) / np.percentile(quiet[kind], 99), 2),
            }
            for kind in ASKED
        },
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
