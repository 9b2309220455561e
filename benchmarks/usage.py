"""What recording usage costs: the engine's thread for an item, the two threads behind it for a row.

    python benchmarks/usage.py        about ten seconds

An item is a generated answer or a ranking of 77 labels. `record` is what stands between its outcome and its
caller; `save` writes rows to the spool, in batches of a second at 1,000 items a second; `write` takes such a
batch to the database, an SQLite file. Medians of rounds, in CPU time of the thread;
prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

from chorus_server.engine.requests import (
    FinishedEvent,
    GenerateRequest,
    Origin,
    PromptHandle,
    Request,
    RequestOutcome,
    ScoredEvent,
    ScoreRequest,
    SequenceOutput,
    Timings,
)
from chorus_server.engine.work import settled
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.metrics import UsageMetrics
from chorus_server.tenancy.usage import UsageRecorder, recorder_of
from prompts_store.store import PromptStore

ROUNDS, ITEMS, BATCH = 9, 20_000, 1_000
ORIGIN = Origin(
    "r", "acme", "acme/sst2", key="key-" + "0" * 24, digest="d" * 64, call="req_" + "0" * 24, item=1
)
INPUT = (PromptHandle("d" * 64, 20), tuple(range(40)))
TIMINGS = Timings(0.0, 0.0, 0.0, None)
GENERATE = GenerateRequest(ORIGIN, INPUT)
SCORE = ScoreRequest(ORIGIN, INPUT, tuple((number, 1) for number in range(77)))
GENERATED = FinishedEvent((SequenceOutput((5,) * 8, (0.0,) * 8, 0.0, "stop"),), 60, TIMINGS)
SCORED = ScoredEvent((0.0,) * 77, 60, TIMINGS)


def microseconds(work: Callable[[], object], items: int) -> float:
    """CPU time of one item."""
    started = time.thread_time()
    work()
    return 1e6 * (time.thread_time() - started) / items


def recorded(recorder: UsageRecorder, request: Request, outcome: RequestOutcome) -> float:
    def work() -> None:
        for _ in range(ITEMS):
            recorder.record(settled(request, outcome, None))

    found = microseconds(work, ITEMS)
    recorder._taken.clear()
    return found


def main() -> None:
    rounds: dict[str, list[float]] = {"record generated": [], "record 77 labels": [], "save": [], "write": []}
    with tempfile.TemporaryDirectory() as scratch:
        store = PromptStore.open(Path(scratch))
        recorder = recorder_of(store, Path(scratch), UsageMetrics(MetricsRegistry()))
        for _ in range(ROUNDS):
            rounds["record generated"].append(recorded(recorder, GENERATE, GENERATED))
            rounds["record 77 labels"].append(recorded(recorder, SCORE, SCORED))
            for _ in range(BATCH):
                recorder.record(settled(GENERATE, GENERATED, None))
            rounds["save"].append(microseconds(recorder.save, BATCH))
            rounds["write"].append(microseconds(recorder.send, BATCH))
        store.close()
    found = {name: round(statistics.median(each), 2) for name, each in rounds.items()}
    print(json.dumps({"machine": machine(), "microseconds": found}, indent=1))


if __name__ == "__main__":
    main()
