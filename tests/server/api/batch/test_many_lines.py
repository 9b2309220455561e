"""20,000 lines through a server: all answered, in order, and none of them kept in memory."""

from __future__ import annotations

import ctypes
import gc
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chorus_server.api.batch.lines import BatchFile
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.jobs.records import OVER, Job
from tests.server.api.api_harness import ApiServer, counted, eventually
from tests.server.api.batch.test_batch import LABELS, line, start, upload

ROWS = 20_000
PADDING = b" " * 4_000
"""JSON may have it, so that the file is as large as one with long texts, and costs no more."""

MOST_BYTES = 40 << 20
_PAGE = 4096


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


@contextmanager
def growth() -> Iterator[Callable[[], int]]:
    """The most memory of this process inside the block, above what it had before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what earlier tests freed is taken again, and no growth is seen
    before, over, most = resident_bytes(), threading.Event(), [0]

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], resident_bytes() - before)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        watch.join()


def padded(bodies: Iterator[dict[str, object]]) -> bytes:
    lines = (json.dumps(line(f"row {n}", body)).encode() + PADDING for n, body in enumerate(bodies))
    return b"\n".join(lines)


def over(api: ApiServer, job: str) -> Job:
    pause = threading.Event()

    def ended() -> bool:
        pause.wait(0.1)
        return api.store.get_job("default", job).status in OVER

    eventually(ended, 1200)
    return api.store.get_job("default", job)


def test_every_line_is_answered_in_memory_of_a_few(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        api.push("first", labels=LABELS)
        file = upload(api, padded({"task": "first", "input": f"good film {n}"} for n in range(ROWS)))
        start_engine_jobs(api.services)
        with growth() as most:
            job = over(api, start(api, file).json()["id"])
        assert job.status == "succeeded" and job.result["rows"] == ROWS and job.result["failed"] == 0
        assert counted(api, "chorus_requests_total", kind="score", outcome="ok") == ROWS
        with api.store.local_file("default", job.result["output_file"]) as path, path.open() as answers:
            for n, text in enumerate(answers):
                assert text.startswith(f'{{"id":"{job.id}.{n + 1}","custom_id":"row {n}",')
        assert n == ROWS - 1
        assert most() < MOST_BYTES, most()


def test_control_lines_that_are_read_all_at_once_take_more(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused one by one, since only their number counts here."""
    lines = BatchFile.lines
    monkeypatch.setattr(BatchFile, "lines", lambda self: iter(list(lines(self))))
    with ApiServer(tmp_path, vocabulary) as api:
        file = upload(api, padded({"colour": n} for n in range(ROWS)))
        start_engine_jobs(api.services)
        with growth() as most:
            job = over(api, start(api, file).json()["id"])
        assert job.status == "succeeded" and job.result["failed"] == ROWS
        assert most() > MOST_BYTES, most()
