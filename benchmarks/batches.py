"""A batch of many lines: its memory, its rate beside the engine's own, and what it costs who asks meanwhile.

    python benchmarks/batches.py                      20,000 lines, about two minutes
    python benchmarks/batches.py --rows 1000000       a million, some 42 minutes
    python benchmarks/batches.py --base               on `chorus serve` and the base that ships, five minutes

The store, the server, the runner of jobs and the scheduler are those that serve; only the device is a sleep
beside the host, so that the rate is known and leaves the processor to what is measured: of `--step-ms` to
encode and score four rows, half of it for each, or to make four tokens; a quarter of it whatever is in the
step, the rest by the row that its shape has, or by the token. The engine alone is given the same requests,
ready made, as many at a time as a batch has under way.

Interactive requests come over HTTP, each 100 ms after the answer to the last: by turns one whose labels are
scored in one step, and one that generates eight tokens. With `--base` they come for `--seconds` alone and for
as long beside a batch, to a server process with its default settings. Prints JSON, with the machine's load.
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
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from machine import machine

from chorus_server.api.batch.work import LINES_AT_ONCE
from chorus_server.api.jobs.attempt import BLOCKS_AT_ONCE
from chorus_server.api.lifecycle import spare_collections
from chorus_server.engine.plans import DecodePlan, PrefillPlan, ScorePlan, StepPlan
from chorus_server.engine.requests import Origin, ScoreRequest
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.jobs.records import OVER
from tests.end_to_end.served import Served
from tests.server.api.api_harness import ApiServer, train_vocabulary

LABELS = ("no", "yes")
EVERY_SECONDS = 0.1
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "one step": ("/v1/classify", {"labels": LABELS}),
    "eight tokens": ("/v1/generate", {"max_new_tokens": 8, "min_new_tokens": 8}),
}
FIXED = 0.25
"""The part of a whole step's time that does not depend on what is in it."""
_PAGE = 4096


class Device:
    """Takes one step after the other while the host goes on.

    Attributes:
        step_seconds: of a step that encodes and scores four rows, half of it for each; and of one that makes
            four tokens in a block. Of others see `FIXED`.
        free: when it is done with all steps.
        due: when each step is done that was not collected yet.
    """

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.free = 0.0
        self.due: deque[float] = deque()

    def dispatched(self, plan: StepPlan) -> None:
        part = (plan.tokens if isinstance(plan, DecodePlan) else plan.bucket[0]) / 4
        seconds = self.step_seconds * (FIXED + (1 - FIXED) * part)
        if isinstance(plan, PrefillPlan) or (isinstance(plan, ScorePlan) and plan.encoded):
            seconds /= 2
        self.free = max(time.monotonic(), self.free) + seconds
        self.due.append(self.free)

    def collected(self, _: object) -> None:
        time.sleep(max(0.0, self.due.popleft() - time.monotonic()))


def text_of(row: int) -> str:
    """All as long: of longer ones fewer are put in a step, which this device takes as long for."""
    return f"good film {row:07}"


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
def asked(url: str, found: dict[str, list[float]]) -> Iterator[None]:
    """Interactive requests meanwhile; their milliseconds by what they ask."""
    turns = cycle(ASKED.items())
    with httpx2.Client(base_url=url, timeout=60) as client:

        def ask() -> None:
            kind, (path, body) = next(turns)
            started = time.perf_counter()
            client.post(path, json={"task": None, "input": "bad movie", **body}).raise_for_status()
            found.setdefault(kind, []).append(1000 * (time.perf_counter() - started))

        with beside(ask, EVERY_SECONDS):
            yield


def upload(http: httpx2.Client, path: Path, rows: int) -> str:
    """The id of a file of so many lines."""
    with path.open("wb") as file:
        file.writelines(lines(rows))
    with path.open("rb") as file:
        answer = http.post("/v1/files", files={"file": ("lines.jsonl", file)}).raise_for_status()
    return str(answer.json()["id"])


def on_the_base(folder: Path, rows: int, seconds: float) -> dict[str, Any]:
    """What interactive requests take on `chorus serve`, alone and beside a batch."""
    quiet: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    with Served(folder, matrix_dtype="auto") as server:
        server.wait_ready()
        url = str(server.http.base_url)
        with asked(url, {}):
            time.sleep(5)  # what is made at the first request is made
        with asked(url, quiet):
            time.sleep(seconds)
        file = upload(server.http, folder.parent / "lines.jsonl", rows)
        job = server.post("/v1/batches", {"file": file, "endpoint": "/v1/classify"})["id"]

        def answered() -> int:
            state = server.http.get(f"/v1/batches/{job}").raise_for_status().json()
            if state["status"] in OVER:
                raise RuntimeError(f"the batch of {rows} lines was over too soon: {state['status']}")
            return int(state["progress"].get("rows", 0))

        while not answered():
            time.sleep(0.5)
        alone, started = answered(), time.perf_counter()
        time.sleep(10)
        rate = (answered() - alone) / (time.perf_counter() - started)
        before, started = answered(), time.perf_counter()
        with asked(url, busy):
            time.sleep(seconds)
        beside_rate = (answered() - before) / (time.perf_counter() - started)
        server.post(f"/v1/batches/{job}/cancel", {})
    return {
        "seconds": seconds,
        "rows_a_second": {"batch": round(rate, 1), "beside interactive requests": round(beside_rate, 1)},
        "interactive": ratios(quiet, busy),
    }


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


def ratios(quiet: dict[str, list[float]], busy: dict[str, list[float]]) -> dict[str, Any]:
    return {
        kind: {
            "requests": [len(quiet[kind]), len(busy[kind])],
            "alone_ms": figures(quiet[kind]),
            "beside_a_batch_ms": figures(busy[kind]),
            "p99_ratio": round(np.percentile(busy[kind], 99) / np.percentile(quiet[kind], 99), 2),
        }
        for kind in ASKED
    }


def on_a_sleeping_device(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    vocabulary = Vocabulary.load(train_vocabulary(folder), extra_ids=4)
    step = given.step_ms / 1000
    with ApiServer(folder / "data", vocabulary) as server:
        device = Device(step)
        server.executor.on_dispatch, server.executor.on_collect = device.dispatched, device.collected
        spare_collections()  # as a server does that has started
        alone = engine_alone(server, vocabulary, given.alone_rows)
        quiet: dict[str, list[float]] = {}
        with asked(server.url, quiet):
            time.sleep(30)
        file = upload(server.http, folder / "lines.jsonl", given.rows)
        start_engine_jobs(server.services)
        memory = [resident_bytes()]

        def look() -> None:
            server.executor.plans.clear()  # it keeps them, for tests
            memory.append(resident_bytes())

        with beside(look, 0.2):
            seconds = run(server, file)
        file = upload(server.http, folder / "lines.jsonl", min(given.rows, 12_000))
        busy: dict[str, list[float]] = {}
        with asked(server.url, busy):
            run(server, file)
    rate = given.rows / seconds
    return {
        "rows": given.rows,
        "step_ms": given.step_ms,
        "rows_a_second": {"engine alone": round(alone, 1), "batch": round(rate, 1)},
        "slower_percent": round(100 * (1 - rate / alone), 1),
        "memory_growth_mib": round((max(memory) - memory[0]) / 2**20, 1),
        "memory_growth_in_the_second_half_mib": round(
            (max(memory[len(memory) // 2 :]) - memory[len(memory) // 2]) / 2**20, 1
        ),
        "interactive": ratios(quiet, busy),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--rows", type=int, help="20,000; with --base 60,000, of which as many as there is time for"
    )
    parser.add_argument("--step-ms", type=float, default=10.0)
    parser.add_argument("--alone-rows", type=int, default=4_000)
    parser.add_argument("--base", action="store_true", help="the base that ships, not a device that sleeps")
    parser.add_argument("--seconds", type=float, default=90.0, help="with --base: alone, and beside a batch")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.base:
            found = on_the_base(Path(scratch) / "data", given.rows or 60_000, given.seconds)
        else:
            given.rows = given.rows or 20_000
            found = on_a_sleeping_device(Path(scratch), given)
    load = [round(each, 1) for each in os.getloadavg()]
    print(json.dumps({"machine": machine(), "load_average": load, **found}, indent=1))


if __name__ == "__main__":
    main()
