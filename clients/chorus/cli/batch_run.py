"""One run of `chorus batch run`: a batch of the server, and a file beside the output that says which, so that
an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.cli.batch_rows import Question
from chorus.cli.table_files import rows_of, write_rows
from chorus.client import Client
from chorus.errors import ApiError, InvalidArgumentError
from chorus.saving import whole_file, write_file
from chorus.types import BatchJob, JobEvent

_PIECE_BYTES = 1 << 20
_RUN = "run"
"""Key of the batch's metadata that says which run started it."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked, and where the answers go.

    Attributes:
        question: about rows of a table; None if the input has the lines of a batch.
    """

    source: Path
    target: Path
    question: Question | None

    @property
    def note(self) -> Path:
        """The file that says which batch it is, until the answers are written."""
        return self.target.with_name(f"{self.target.name}.batch")

    @property
    def errors(self) -> Path:
        """Where lines that failed go."""
        return self.target.with_name(f"{self.target.stem}.errors.jsonl")

    def begin(self, client: Client, *, resume: bool) -> BatchJob:
        """Start the batch, or find the one that was started before.

        Raises:
            InvalidArgumentError: there is an unfinished run, or none to resume.
        """
        if self.note.exists():
            if not resume:
                raise InvalidArgumentError(
                    f"An earlier run is not finished: give --resume to go on with it, or remove "
                    f"{str(self.note)!r}."
                )
            return self._found(client)
        if resume and self.target.exists():
            raise InvalidArgumentError(f"There is no unfinished run of {str(self.target)!r} to resume.")
        return self._started(client, secrets.token_hex(8))

    def finish(self, client: Client, job: BatchJob) -> int:
        """Write the answers of a batch that succeeded, and return how many lines there are."""
        with tempfile.TemporaryDirectory(dir=self.target.parent) as folder:
            files = {"output": job.output_file, "errors": job.error_file}
            found = {
                name: client.files.save(file, Path(folder) / f"{name}.jsonl")
                for name, file in files.items()
                if file is not None
            }
            if self.question is not None:
                rows = self.question.joined(self.source, list(found.values()))
                with whole_file(self.target) as file:
                    count = write_rows(file, self.target, rows, self.source, self.question.added)
            else:
                count = job.result.get("rows", 0)
                if "output" not in found:
                    write_file(self.target, b"")
                self.errors.unlink(missing_ok=True)  # those of an earlier run
                for name, path in (("output", self.target), ("errors", self.errors)):
                    if name in found:
                        found[name].replace(path)
        self.forget()
        return count

    def forget(self) -> None:
        """There is nothing left to resume."""
        self.note.unlink(missing_ok=True)

    def _found(self, client: Client) -> BatchJob:
        noted: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            noted = json.loads(self.note.read_text())
        if noted.get("digest") != self._digest():
            raise InvalidArgumentError(
                f"{str(self.source)!r} or the options are others than those of the run that was begun: give "
                f"the same, or remove {str(self.note)!r} and begin anew."
            )
        if "job" in noted:
            job = client.batches.get(noted["job"])
        else:  # the command ended while it started the batch
            begun = (each for each in client.batches.list() if each.metadata.get(_RUN) == noted["run"])
            job = next(begun, None) or self._started(client, noted["run"])
        return client.batches.resume(job) if job.status in ("failed", "cancelled") else job

    def _started(self, client: Client, run: str) -> BatchJob:
        if self.question is None:
            return self._queued(client, self.source, self._endpoint(), run)
        with tempfile.NamedTemporaryFile(dir=self.target.parent, suffix=".jsonl") as lines:
            for line in self.question.lines(self.source):
                lines.write(line)
            lines.flush()
            return self._queued(client, Path(lines.name), self.question.endpoint, run)

    def _queued(self, client: Client, lines: Path, endpoint: str, run: str) -> BatchJob:
        """Start the batch. The note says first what tells this run's batch, and then its id."""
        noted = {"run": run, "digest": self._digest()}
        write_file(self.note, json.dumps(noted).encode())
        try:
            job = client.batches.start(lines, endpoint, metadata={_RUN: run})
        except (ApiError, InvalidArgumentError):
            self.forget()
            raise
        write_file(self.note, json.dumps({**noted, "job": job.id}).encode())
        return job

    def _endpoint(self) -> str:
        """The route that the lines are for: what the first one says."""
        first = next(rows_of(self.source), {})
        url = first.get("url")
        if not isinstance(url, str):
            raise InvalidArgumentError(
                f"{str(self.source)!r} has no lines of a batch (custom_id, method, url, body): give "
                "--task to ask about its rows."
            )
        return url

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self.question).encode())
        with self.source.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()


def follow(client: Client, job: BatchJob, tell: Callable[[JobEvent], None]) -> BatchJob:
    """Wait for the end of a batch."""
    with client.batches.events(job) as events:
        for event in events:
            tell(event)
    return client.batches.get(job)
