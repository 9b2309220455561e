"""Whole Parquet files of a folder or bucket, answered with Ray Data, and resumable by file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from chorus_server.cluster.files import (
    SOURCE,
    AnsweredFile,
    FileSets,
    answered_files,
    attempted,
    bucket_of,
    fetch,
)
from chorus_server.cluster.questions import ROW_CODES, DatasetEndpoint, RowQuestion
from chorus_server.cluster.rows import RowAnswers
from chorus_server.cluster.runs import check_newest, only_run
from chorus_server.errors import (
    ChorusError,
    ConflictError,
    EngineDeadError,
    NotReadyError,
    QuotaExceededError,
)
from chorus_server.settings import load_settings
from prompts_store.errors import StoreError

LOG = logging.getLogger("chorus.cluster")

GROUP_ROWS = 4096
"""Rows of a file that are in memory together; a row group of the answered file."""

_CHANGED = "It was written or removed while it was answered: answer the rest again."
_SUMMARY = pa.schema({"path": pa.string(), "rows": pa.int64(), "failed": pa.int64(), "error": pa.string()})


class FileAnswers:
    """A class for `map_batches`: answers the files whose paths are in the column `path`, one after another.

    Args:
        source, target: URLs of folders or buckets.
        run: the number of the run.
        question: for `RowAnswers`, by name.
    """

    def __init__(self, source: str, target: str, run: int, **question: Any) -> None:
        settings = load_settings(question.get("settings"), listening=False)
        self._source = bucket_of(settings, source, "source")
        self._target = bucket_of(settings, target, "target")
        self._run = run
        self._rows = RowAnswers(**question)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A row for each file: `path`, `rows`, `failed` and `error`, null if it was answered.

        Raises:
            QuotaExceededError, StoreError: as `RowAnswers`, or source or target do not answer.
            ConflictError: another run has the target now.
        """
        for path in batch["path"].to_pylist():
            check_newest(self._target, self._run)
            with tempfile.TemporaryDirectory(prefix="chorus-dataset-") as folder:
                yield pa.Table.from_pylist([self._answer_file(path, Path(folder))], _SUMMARY)

    def _answer_file(self, path: str, folder: Path) -> dict[str, Any]:
        before, after = folder / "before.parquet", folder / "after.parquet"
        try:
            with attempted(self._target, path, self._run):
                version = fetch(self._source, path, before)
                rows, failed = self._rewrite(before, after, version)
                self._check_version(path, version)
                check_newest(self._target, self._run)
                self._target.put_file(path, after)
                self._check_version(path, version)  # if it is another by now, the next run sees that too
        except (QuotaExceededError, NotReadyError, EngineDeadError):
            raise  # other files would fare no better
        except (ChorusError, StoreError, OSError, ValueError, pa.ArrowException) as error:
            if getattr(error, "code", None) == StoreError.default_code:
                raise
            # Arrow's words may quote what is in a cell: they are for the result alone.
            LOG.warning("the file %s cannot be answered: %s", path, type(error).__name__)
            reason = error.message if isinstance(error, ChorusError | StoreError) else str(error)
            return {"path": path, "rows": 0, "failed": 0, "error": reason[:500]}
        return {"path": path, "rows": rows, "failed": failed, "error": None}

    def _check_version(self, path: str, version: str) -> None:
        if self._source.version(path) != version:
            raise ConflictError(_CHANGED)

    def _rewrite(self, before: Path, after: Path, version: str) -> tuple[int, int]:
        """Write the rows of a file with their answers: how many they are, and how many have an error.

        Raises:
            ChorusError: a row has an error that is not its own.
        """
        rows = failed = 0
        with pq.ParquetFile(before) as file:
            schema = self._rows.question.schema(file.schema_arrow)
            schema = schema.with_metadata({**(schema.metadata or {}), SOURCE: version.encode()})
            with pq.ParquetWriter(after, schema, compression="zstd") as writer:
                for batch in file.iter_batches(GROUP_ROWS):
                    answered = self._rows(pa.Table.from_batches([batch]))
                    _check_errors(answered)
                    writer.write_table(answered)
                    rows += len(answered)
                    failed += len(answered) - answered["answer_error"].null_count
        return rows, failed


def _check_errors(answered: pa.Table) -> None:
    """Raise what is no row's own error, such as a task that was deleted: it may be mended, and a file that is
    there is not answered again."""
    errors = zip(answered["answer_error"], answered["answer_error_message"], strict=True)
    for code, message in ((code.as_py(), message.as_py()) for code, message in errors if code.is_valid):
        if code not in ROW_CODES:
            raise ChorusError(message, code=code)


def answer_files(
    source: str,
    target: str,
    *,
    endpoint: DatasetEndpoint,
    body: Mapping[str, Any],
    input: str | Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    actors: int = 1,
    **of_actors: Any,
) -> list[AnsweredFile]:
    """Answer every `*.parquet` below `source`, into a file of the same path below `target`.

    A file appears whole or not at all. Those that are there already, and answer their source as it is now,
    are skipped: after a crash, the same call does the files that were under way, and the rest. A file that
    cannot be read, or has an error that is not of one row, has it in the result, and others go on. One run at
    a time writes into a target.

    Args:
        source, target: `s3://BUCKET/PREFIX`, `gs://`, `az://` or `file:///FOLDER`. Buckets are reached as
            the store's (`blob_url`, `blob_credentials_file`), unless the URL says how.
        endpoint, body, input, settings: as in `RowAnswers`.
        actors: processes of Ray that each load the base and answer one file at a time.
        of_actors: what each needs of Ray, such as `num_cpus=8` or `num_gpus=1`, as in `map_batches`.

    Raises:
        InvalidInputError: an argument is not valid; names the field. Or the target has other answers.
        ConflictError: another run writes into the target.
        StoreError: the source or the target does not answer.
        ray.exceptions.RayError: an actor failed for good; what was answered stays.
    """
    question = RowQuestion(endpoint, body, input)
    found, bucket = FileSets(source, target).begin(load_settings(settings, listening=False), question)
    with only_run(bucket) as run:
        done = answered_files(found, bucket)
        todo = sorted(found.keys() - set(done))
        LOG.info("%d files to answer, %d are answered already", len(todo), len(done))
        of_files = {"source": source, "target": target, "run": run.number, "settings": settings}
        files = [AnsweredFile(path, skipped=True) for path in done]
        for row in _rows_of_files(todo, {**of_files, **question.document()}, actors, of_actors):
            run.check()
            files.append(AnsweredFile(**row))
    return sorted(files, key=lambda file: file.path)


def _rows_of_files(
    todo: list[str], of_files: Mapping[str, Any], actors: int, of_actors: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What Ray's actors say of each file."""
    import ray
    from ray.data import ActorPoolStrategy

    if not todo:
        return
    paths = ray.data.from_items([{"path": path} for path in todo], override_num_blocks=len(todo))
    yield from paths.map_batches(
        FileAnswers,
        fn_constructor_kwargs=dict(of_files),
        batch_format="pyarrow",
        batch_size=1,
        compute=ActorPoolStrategy(size=min(actors, len(todo)), max_tasks_in_flight_per_actor=1),
        **of_actors,
    ).iter_rows()
