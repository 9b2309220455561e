"""Does a batch: answers every line of its file, and makes files of the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from chorus_server.api.batch.answering import AnsweredLine, BatchLine, answer_lines
from chorus_server.api.batch.lines import BatchFile, Endpoint, check_alone
from chorus_server.api.jobs.attempt import AskBlock, EngineAttempt
from chorus_server.api.schemas.documents.batch import BatchDocument, BatchEndpoint
from chorus_server.errors import ChorusError, InvalidInputError
from chorus_server.jobs.leased import JobCancelledError
from chorus_server.jobs.line_log import LineLog
from prompts_store.errors import LeaseLostError, StoreError

LINES_AT_ONCE = 16
"""Lines that are submitted at the same instant."""

_SAVE_SECONDS = 1.0
_TOLD_TIMES = 100


def run_batch(endpoints: Mapping[BatchEndpoint, Endpoint], attempt: EngineAttempt) -> Mapping[str, Any]:
    """The result of a batch, whose answers and errors become data files of the tenant.

    Raises:
        InvalidInputError: lines are at fault, field `file`; the progress says which.
    """
    document = stored_batch(attempt.job.spec)
    assert document.endpoint is not None
    with attempt.store.local_file(attempt.job.tenant, document.file) as path:
        endpoint = endpoints[document.endpoint]
        file = BatchFile(path, document.endpoint, endpoint, attempt.services.settings)
        return _answered(file, attempt)


def _answered(file: BatchFile, attempt: EngineAttempt) -> Mapping[str, Any]:
    rows = attempt.progress.get("rows_in_all") or _checked(file, attempt)
    # An earlier attempt may have been writing.
    attempt.progress |= {"phase": "asking", "rows_in_all": rows}
    attempt.held.update(status="running", progress=attempt.progress)
    with LineLog(attempt.folder, attempt.held.token) as log:
        work = _Work(attempt, log, rows)
        work.tell(save=True)
        blocks = _blocks(file, attempt.job.id, log.counts.lines)
        try:
            for answered in attempt.ask_side_by_side(blocks):
                work.keep(answered)
        except JobCancelledError:
            raise JobCancelledError(_files_of_some(work)) from None
        return _files(work)


def stored_batch(spec: Mapping[str, Any]) -> BatchDocument:
    """The document of a job, without what was stored beside it."""
    return BatchDocument.read({name: value for name, value in spec.items() if name not in ("key", "tasks")})


@dataclass(slots=True)
class _Work:
    """Keeps answers, and tells how far the batch is.

    Attributes:
        rows: of the file.
        saved: when the progress was last stored, on the monotonic clock.
        told: in hundredths of all rows.
    """

    attempt: EngineAttempt
    log: LineLog
    rows: int
    saved: float = field(default_factory=time.monotonic)
    told: int = -1

    def keep(self, answered: list[AnsweredLine]) -> None:
        """Keep some lines."""
        self.log.append(line.logged() for line in answered)
        self.attempt.count(len(answered))
        self.tell(save=time.monotonic() - self.saved >= _SAVE_SECONDS)

    def tell(self, *, save: bool) -> None:
        """Tell of each hundredth, and store the progress if it is time; that asks whether the lease holds."""
        attempt, done = self.attempt, self.log.counts.lines
        share = done * _TOLD_TIMES // self.rows
        if not save and share == self.told:
            return
        self.log.sync()
        attempt.progress |= {"rows": done, "failed": self.log.counts.failed}
        attempt.save_progress()
        self.saved = time.monotonic()
        if share > self.told:
            self.told = share
            attempt.held.tell([("rows", {"rows": done, "rows_in_all": self.rows})])


def _checked(file: BatchFile, attempt: EngineAttempt) -> int:
    """How many lines the file has.

    Raises:
        InvalidInputError: it has faults.
    """
    rows, faults = file.check(attempt.held.check)
    if faults:
        attempt.progress["faults"] = faults
        attempt.save_progress()
        first = faults[0]
        more = f" ({len(faults)} faults are listed under progress.faults)" if len(faults) > 1 else ""
        what = f", {first['param']}" if first["param"] else ""
        message = f"Line {first['line']}{what}: {first['message']}{more}"
        raise InvalidInputError(message, field="file", code=first["code"])
    return rows


def _blocks(file: BatchFile, job: str, answered: int) -> Iterator[AskBlock[list[AnsweredLine]]]:
    """The questions of each block of lines, without the first lines, which are answered."""
    lines = islice(file.lines(), answered, None)
    while some := [_line(file, f"{job}.{number}", line) for number, line in islice(lines, LINES_AT_ONCE)]:
        yield partial(answer_lines, file.endpoint, some)


def _line(file: BatchFile, request_id: str, line: bytes) -> BatchLine:
    custom_id, body = file.envelope(line)
    if isinstance(body, ChorusError):
        return BatchLine(custom_id, request_id, body)
    try:
        found = file.endpoint.body.validated(body)
        check_alone(found)
    except InvalidInputError as error:
        return BatchLine(custom_id, request_id, error)
    return BatchLine(custom_id, request_id, found)


def _files_of_some(work: _Work) -> dict[str, Any]:
    """As `_files`, of a batch that was cancelled, which it stays where a file cannot be stored."""

    def saved(kind: str) -> str | None:
        try:
            return _saved(work, kind, f"-first-{work.log.counts.lines}")
        except LeaseLostError:
            raise
        except (StoreError, OSError) as error:
            reason = error.message if isinstance(error, StoreError) else f"the disk failed ({error.strerror})"
            work.attempt.warn([f"The answers so far could not be stored ({kind}): {reason}"])
            return None

    return _result(work, saved)


def _files(work: _Work) -> dict[str, Any]:
    """The result, once the files of what is answered are stored."""
    return _result(work, lambda kind: _saved(work, kind))


def _saved(work: _Work, kind: str, part: str = "") -> str | None:
    """The file of the lines that were answered well (`output`) or badly (`errors`); None if there are none.

    Args:
        part: what of the batch it has, in its name: a batch that goes on makes others.
    """
    counts, good = work.log.counts, kind == "output"
    if not (counts.lines - counts.failed if good else counts.failed):
        return None
    name = f"{work.attempt.job.id}{part}-{kind}.jsonl"
    return work.attempt.save_file(name, work.log.texts(good), "batch_output")


def _result(work: _Work, saved: Callable[[str], str | None]) -> dict[str, Any]:
    counts = work.log.counts
    work.attempt.progress["phase"] = "writing"
    work.tell(save=True)
    result = {
        "rows": counts.lines,
        "failed": counts.failed,
        "output_file": saved("output"),
        "error_file": saved("errors"),
        "usage": {"input_tokens": counts.input_tokens, "output_tokens": counts.output_tokens},
    }
    work.attempt.held.tell([("answered", result)])
    return result
