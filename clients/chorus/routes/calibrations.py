"""`/v1/tasks/{task}/versions/{n}/calibrations`: what probabilities of a version's labels mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chorus.methods import Method
from chorus.routes import references
from chorus.routes.files import file_id
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page, resolve, task_path
from chorus.types import Calibration, CalibrationJob, CalibrationPage, DataFile
from chorus.wire import Call, Request, Steps, creation, encode_json, model_of, query_of, without_none


def calibrate(
    task: str,
    file: str | DataFile,
    *,
    version: int | str | None = None,
    format: str | None = None,
    column_names: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    target: str | None = None,
    target_texts: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    prior: bool | None = None,
) -> Steps[CalibrationJob]:
    """Queue a job that calibrates a version on rows whose answers are known, and that no prompt learned from.

    A tuning job calibrates what it makes; this is for prompts that were uploaded, and for other rows. Look
    after the job with `calibration_job`.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        file: an uploaded file, or its id, with 50 rows or more.
        version: a number or an alias, if `task` names no version; default `live`.
        format: `jsonl`, `csv`, `tsv` or `parquet`; by default what the file's name ends in.
        column_names: names of the columns of a CSV or TSV file without a header.
        columns: column of each template field whose name differs from its column's.
        target: column of the answer; default `label`.
        target_texts: label for each value of that column, such as `{"0": "negative"}`.
        labels: the labels to calibrate; default the version's own.
        prior: whether to fit a prior a label beside the temperature; by default it is.
    """
    number = yield from resolve(task, version)
    body = without_none(
        {
            "file": file_id(file),
            "format": format,
            "column_names": None if column_names is None else list(column_names),
            "columns": None if columns is None else dict(columns),
            "target": target,
            "target_texts": None if target_texts is None else dict(target_texts),
            "labels": None if labels is None else list(labels),
            "prior": prior,
        }
    )
    named = references.parse(task)
    path = task_path(named, "versions", str(number), "calibrations")
    request = creation(path, named.query, body=encode_json(body))
    return (yield from Call(request, model_of(CalibrationJob)))


def list_page(
    task: str, version: int, *, limit: int | None = None, cursor: str | None = None
) -> Call[CalibrationPage]:
    """One page of a version's calibrations, newest first.

    Args:
        task: the task.
        version: the version's number.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    named = references.parse_whole(task)
    path = task_path(named, "versions", str(references.version_number(version)), "calibrations")
    return Call(get_page(path, named.query + query_of(limit=limit, cursor=cursor)), model_of(CalibrationPage))


def calibrations(task: str, version: int | str | None = None) -> Steps[list[Calibration]]:
    """Every calibration of a version, newest first; the first one serves.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        version: a number or an alias, if `task` names no version; default `live`.
    """
    number = yield from resolve(task, version)
    named = references.parse(task)
    path = task_path(named, "versions", str(number), "calibrations")
    return (
        yield from every(
            lambda cursor: Call(
                get_page(path, named.query + query_of(limit=PAGE, cursor=cursor)), model_of(CalibrationPage)
            ),
            lambda page: page.calibrations,
        )
    )


def get(task: str, calibration: int, *, version: int | str | None = None) -> Steps[Calibration]:
    """One calibration of a version.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        calibration: its number.
        version: a number or an alias, if `task` names no version; default `live`.
    """
    number = yield from resolve(task, version)
    named = references.parse(task)
    path = task_path(named, "versions", str(number), "calibrations", str(calibration))
    return (yield from Call(get_page(path, named.query), model_of(Calibration)))


def _of_job(task: str, job: str | CalibrationJob, *rest: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    name = job.id if isinstance(job, CalibrationJob) else job
    named = references.parse(task)
    return task_path(named, "calibration_jobs", references.segment(name, "job"), *rest), named.query


def get_job(task: str, job: str | CalibrationJob) -> Call[CalibrationJob]:
    """A job that calibrates a version of the task.

    Args:
        task: the task.
        job: the job or its id.
    """
    return Call(get_page(*_of_job(task, job)), model_of(CalibrationJob))


def cancel_job(task: str, job: str | CalibrationJob) -> Call[CalibrationJob]:
    """Cancel such a job.

    Args:
        task: the task.
        job: the job or its id.

    Raises:
        ConflictError: it is over.
    """
    return Call(Request("POST", *_of_job(task, job, "cancel")), model_of(CalibrationJob))


class CalibrationMethods:
    """The methods of `client.tasks` for calibrations."""

    calibrate = Method(calibrate)
    calibrations = Method(calibrations)
    calibration = Method(get)
    calibration_job = Method(get_job)
    cancel_calibration = Method(cancel_job)
