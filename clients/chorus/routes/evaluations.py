"""`/v1/evaluations`: how good the answers of prompts, ensembles, packs and the base model are on a file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from chorus.datafiles import DataSource
from chorus.errors import ApiError, ChorusError, InvalidArgumentError
from chorus.following import Following
from chorus.methods import Method
from chorus.routes import files, references
from chorus.routes.job_events import read_events
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import (
    DataFile,
    Evaluation,
    EvaluationPage,
    EvaluationSummary,
    JobEvent,
)
from chorus.wire import Call, Request, Steps, creation, encode_json, model_of, query_of, without_none

PATH_OF_EVALUATIONS = "/v1/evaluations"

Asked = str | Mapping[str, Any]
"""A prompt's reference; or `{"task": ...}`, `{"ensemble": ...}`, `{"pack": ..., "question": ...}`,
`{"base": {...}}` or `{"majority": True}`."""


_path = partial(references.job_path, PATH_OF_EVALUATIONS)


def start(
    subjects: Asked | Sequence[Asked],
    file: DataSource | DataFile,
    *,
    examples: DataSource | DataFile | None = None,
    labels: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    answer_by: str | None = None,
    columns: Mapping[str, str] | None = None,
    target: str | None = None,
    target_texts: Mapping[str, str] | None = None,
    seed: int | None = None,
    document: Mapping[str, Any] | None = None,
) -> Steps[Evaluation]:
    """Evaluate prompts, ensembles, questions of packs or the base model on a file: upload what is not on the
    server yet, and queue the job.

    Follow it with `events`, or wait for its end with `wait`. If it is refused, all files that were uploaded
    for it are deleted again.

    Args:
        subjects: what to evaluate, one or several; the later ones are compared with the first.
        file: the rows: a path, rows, an uploaded file or its id.
        examples: rows that a base subject with `few_shot` is shown, and whose commonest answer `majority`
            gives, from another file.
        labels: the possible answers; by default those that all subjects have.
        metrics: any of tuning's.
        answer_by: `ranked`, `calibrated` or `greedy`; by default `ranked` where there are labels.
        columns: column of each template field whose name differs from its column's.
        target: column of the answer.
        target_texts: answer for each value of that column.
        seed: of resamples, and of the choice of examples.
        document: a whole document, or further fields of one; the other arguments override it.
    """
    single = isinstance(subjects, (str, Mapping))
    asked: Sequence[Asked] = [subjects] if single else subjects  # type: ignore[assignment, list-item]
    given = {
        "subjects": [{"task": each} if isinstance(each, str) else dict(each) for each in asked],
        "labels": None if labels is None else list(labels),
        "metrics": None if metrics is None else list(metrics),
        "answer_by": answer_by,
        "columns": None if columns is None else dict(columns),
        "target": target,
        "target_texts": None if target_texts is None else dict(target_texts),
        "seed": seed,
    }
    sent: list[DataFile] = []
    try:
        for name, source in (("file", file), ("examples", examples)):
            if source is None:
                continue
            if isinstance(source, DataFile) or (isinstance(source, str) and files.FILE_ID.fullmatch(source)):
                given[name] = files.file_id(source)
                continue
            pushed = yield from files.push_for(source, name)
            sent.append(pushed)
            given[name] = pushed.id
        body = encode_json({**(document or {}), **without_none(given)})
        return (yield from Call(creation(PATH_OF_EVALUATIONS, body=body), model_of(Evaluation)))
    except (ApiError, InvalidArgumentError):
        with contextlib.suppress(ChorusError):  # the caller must see the refusal
            for pushed in sent:
                yield from files.delete(pushed)
        raise


def list_page(
    *, status: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[EvaluationPage]:
    """One page of the evaluations, newest first.

    Args:
        status: only evaluations with this status.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(status=status, limit=limit, cursor=cursor)
    return Call(get_page(PATH_OF_EVALUATIONS, query), model_of(EvaluationPage))


def list_all(*, status: str | None = None) -> Steps[list[EvaluationSummary]]:
    """Every evaluation, newest first; fetches page after page.

    Args:
        status: only evaluations with this status.
    """
    return (
        yield from every(
            lambda cursor: list_page(status=status, limit=PAGE, cursor=cursor), lambda page: page.evaluations
        )
    )


def get(job: str | EvaluationSummary) -> Call[Evaluation]:
    """One evaluation."""
    return Call(get_page(_path(job), ()), model_of(Evaluation))


def cancel(job: str | EvaluationSummary) -> Call[Evaluation]:
    """Cancel an evaluation: at once if it is queued, else as soon as its runner sees the request.

    Raises:
        ConflictError: it is over.
    """
    return Call(Request("POST", _path(job, "cancel")), model_of(Evaluation))


def resume(job: str | EvaluationSummary) -> Call[Evaluation]:
    """Queue an evaluation again that failed or was cancelled. It goes on after its last block of rows.

    Raises:
        ConflictError: it neither failed nor was cancelled, or its file was deleted.
    """
    return Call(Request("POST", _path(job, "resume")), model_of(Evaluation))


def predictions(job: Evaluation) -> Call[bytes]:
    """What every subject said to every row of an evaluation that succeeded, as JSON Lines.

    Raises:
        InvalidArgumentError: it has not succeeded.
    """
    file = job.result.get("predictions")
    if not isinstance(file, str):
        raise InvalidArgumentError(f"{job.id} is {job.status} and has no predictions.", field="job")
    return files.content(file)


def past_events(job: str | EvaluationSummary, *, after: int = 0) -> Steps[list[JobEvent]]:
    """The events of an evaluation so far, without waiting for more.

    Args:
        job: the evaluation or its id.
        after: number of the last event that the caller has.
    """
    return (yield from read_events(_path(job, "events"), after))


def events(job: str | EvaluationSummary, *, after: int = 0, patience_seconds: float = 300.0) -> Following:
    """An evaluation's events in order, past ones first, until it is over.

    If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

    Args:
        job: the evaluation or its id.
        after: number of the last event that the caller has.
        patience_seconds: how long the server may stay away at a time before its error is raised.
    """
    return Following(_path(job, "events"), after, patience_seconds)


class EvaluationMethods:
    """The methods of `client.evaluations` that make one call."""

    start = Method(start)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    cancel = Method(cancel)
    resume = Method(resume)
    predictions = Method(predictions)
    past_events = Method(past_events)
