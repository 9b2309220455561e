"""`/v1/tuning/jobs`: new prompts from data."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

from chorus.datafiles import Rows
from chorus.errors import ApiError, ChorusError, InvalidArgumentError
from chorus.following import Following
from chorus.methods import Method
from chorus.routes import files, references
from chorus.routes.job_events import read_events
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import DataFile, Job, JobEvent, JobPage, JobSummary
from chorus.types.job_fields import JobFields
from chorus.wire import Call, Request, Steps, creation, encode_json, model_of, query_of, without_none

PATH = "/v1/tuning/jobs"

Data = str | os.PathLike[str] | DataFile | Rows | Mapping[str, str]
"""A local path, an uploaded file or its id, or rows; or `{"path": ...}` or `{"url": ...}` for the server to
read."""

_SOURCES = ({"file"}, {"path"}, {"url"})

EARLIER_SPLITS = {"selection": "validation", "report": "test"}
"""Names of the splits in 0.1.0, which are still taken."""


_path = partial(references.job_path, PATH)


def start(
    task: str | None = None,
    *,
    train: Data | None = None,
    validation: Data | None = None,
    test: Data | None = None,
    data: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
    **fields: Unpack[JobFields],
) -> Steps[Job]:
    """Tune a prompt: upload what is not on the server yet, and queue a job.

    Follow it with `events`, or wait for its end with `wait`. If the job or one of its files is refused, all
    files that were uploaded for it are deleted again.

    Args:
        task: the task that gets the new version; it is created if it does not exist.
        train: the data to learn from: a path, rows, an uploaded file or its id; or `{"path": ...}` or
            `{"url": ...}`, if the server's operator allows them.
        validation: data that chooses the checkpoint; by default it is cut from train.
        test: data that is measured once, at the end.
        data: further fields of the document's `data`: format, column_names, validation_rows, validation_from.
        recipe: knobs that differ from the paper's: steps, batch_size, prompt_length, learning_rate, ...
        document: a whole job document. The other arguments override it; `data`, `recipe` and `sweep` field by
            field.
        fields: any other field of a job document, see `JobFields`: template, columns, target, labels,
            metrics, seed, ensemble, promote, ... The server refuses a field that it does not know, and names
            it.
    """
    whole = dict(document or {})
    splits: dict[str, Data | None] = {"train": train, "validation": validation, "test": test}
    for earlier, name in EARLIER_SPLITS.items():
        if earlier in fields:
            if splits[name] is not None:
                raise InvalidArgumentError(f"{earlier} is {name}: give one of them.", field=earlier)
            splits[name] = fields.pop(earlier)  # type: ignore[misc]
    sent: list[DataFile] = []
    sources: dict[str, Any] = {}
    knobs = {**(whole.get("recipe") or {}), **(recipe or {})} or None
    given_fields = without_none({"task": task, "recipe": knobs, **fields})
    if whole.get("sweep") and (searched := fields.get("sweep")):
        given_fields["sweep"] = {**whole["sweep"], **searched}
    try:
        for name, given in splits.items():
            if given is None:
                continue
            source = _on_server(given, name)
            if source is None:
                file = yield from files.push_for(given, name)
                sent.append(file)
                source = {"file": file.id}
            sources[name] = source
        of_data = {**(whole.get("data") or {}), **(data or {}), **sources}
        body = {**whole, **given_fields, **({"data": of_data} if of_data else {})}
        return (yield from Call(creation(PATH, body=encode_json(body)), model_of(Job)))
    except (ApiError, InvalidArgumentError):
        with contextlib.suppress(ChorusError):  # the caller must see the refusal
            for file in sent:
                yield from files.delete(file)
        raise


def _on_server(given: Data, field: str) -> dict[str, str] | None:
    """The source of data that the server has already; None for data that must be uploaded."""
    if isinstance(given, DataFile):
        return {"file": given.id}
    if isinstance(given, str) and files.FILE_ID.fullmatch(given):
        return {"file": given}
    if isinstance(given, Mapping):
        if set(given) not in _SOURCES:
            raise InvalidArgumentError(
                f'{field} must be a path, rows, a file, or one of {{"file": id}}, {{"path": ...}} and '
                f'{{"url": ...}}, not an object with {", ".join(map(str, given)) or "nothing"}.',
                field=field,
            )
        return dict(given)
    return None


def list_page(
    *, status: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[JobPage]:
    """One page of the jobs, newest first.

    Args:
        status: only jobs with this status.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    return Call(get_page(PATH, query_of(status=status, limit=limit, cursor=cursor)), model_of(JobPage))


def list_all(*, status: str | None = None) -> Steps[list[JobSummary]]:
    """Every job, newest first; fetches page after page.

    Args:
        status: only jobs with this status.
    """
    return (
        yield from every(
            lambda cursor: list_page(status=status, limit=PAGE, cursor=cursor), lambda page: page.jobs
        )
    )


def get(job: str | JobSummary) -> Call[Job]:
    """One job."""
    return Call(get_page(_path(job), ()), model_of(Job))


def cancel(job: str | JobSummary) -> Call[Job]:
    """Cancel a job: at once if it is queued, else as soon as its runner sees the request.

    Raises:
        ConflictError: the job is over.
    """
    return Call(Request("POST", _path(job, "cancel")), model_of(Job))


def pause(job: str | JobSummary) -> Call[Job]:
    """Let a job wait, from its next checkpoint on, until it is resumed.

    Raises:
        ConflictError: the job is over.
    """
    return Call(Request("POST", _path(job, "pause")), model_of(Job))


def resume(job: str | JobSummary) -> Call[Job]:
    """Queue a job again that failed or was cancelled, or end a pause. It goes on from its last checkpoint.

    Raises:
        ConflictError: the job neither failed, was cancelled nor is paused, or one of its files was deleted.
    """
    return Call(Request("POST", _path(job, "resume")), model_of(Job))


def mistakes(job: Job) -> Steps[list[dict[str, Any]]]:
    """What each new version of a job gets wrong, on the split that chose its checkpoint: an object for each,
    with `reference`, `split`, `rows`, `confusion`, and in `hardest` the rows with the highest loss.

    Args:
        job: that succeeded.

    Raises:
        InvalidArgumentError: it has no such file: it did not succeed, or an earlier server ran it.
        NotFoundError: the file was deleted.
    """
    file = job.result.get("mistakes")
    if not isinstance(file, str):
        raise InvalidArgumentError(f"{job.id} is {job.status} and has no mistakes.", field="job")
    content = yield from files.content(file)
    return [json.loads(line) for line in content.splitlines()]


def past_events(job: str | JobSummary, *, after: int = 0) -> Steps[list[JobEvent]]:
    """The events of a job so far, without waiting for more.

    Args:
        job: the job or its id.
        after: number of the last event that the caller has.
    """
    return (yield from read_events(_path(job, "events"), after))


def events(job: str | JobSummary, *, after: int = 0, patience_seconds: float = 300.0) -> Following:
    """A job's events in order, past ones first, until the job is over.

    If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

    Args:
        job: the job or its id.
        after: number of the last event that the caller has.
        patience_seconds: how long the server may stay away at a time before its error is raised.
    """
    return Following(_path(job, "events"), after, patience_seconds)


class TuningMethods:
    """The methods of `client.tuning` that make one call."""

    start = Method(start)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    cancel = Method(cancel)
    pause = Method(pause)
    resume = Method(resume)
    mistakes = Method(mistakes)
    past_events = Method(past_events)
