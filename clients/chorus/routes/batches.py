"""`/v1/batches`: many requests in the lines of a file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial

from chorus.datafiles import DataSource
from chorus.errors import ApiError, ChorusError
from chorus.following import Following
from chorus.methods import Method
from chorus.routes import files, references
from chorus.routes.job_events import read_events
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import BatchJob, BatchPage, DataFile, JobEvent
from chorus.wire import Call, Request, Steps, creation, encode_json, model_of, query_of, without_none

PATH_OF_BATCHES = "/v1/batches"


_path = partial(references.job_path, PATH_OF_BATCHES)


def start(
    file: DataSource | DataFile, endpoint: str, *, metadata: Mapping[str, str] | None = None
) -> Steps[BatchJob]:
    """Answer the lines of a file: upload it unless it is on the server, and queue the job.

    Follow it with `events`, or wait for its end with `wait`, then fetch its files with `client.files.save`.
    If it is refused, a file that was uploaded for it is deleted again.

    Args:
        file: the lines, each `{"custom_id", "method": "POST", "url", "body"}`: a path, rows, an uploaded file
            or its id.
        endpoint: the `url` of every line, such as `/v1/classify`.
        metadata: texts of your own.
    """
    pushed: DataFile | None = None
    if isinstance(file, DataFile) or (isinstance(file, str) and files.FILE_ID.fullmatch(file)):
        name = files.file_id(file)
    else:
        pushed = yield from files.push_for(file, "file")
        name = pushed.id
    given = {"file": name, "endpoint": endpoint, "metadata": None if metadata is None else dict(metadata)}
    try:
        body = encode_json(without_none(given))
        return (yield from Call(creation(PATH_OF_BATCHES, body=body), model_of(BatchJob)))
    except ApiError:
        if pushed is not None:
            with contextlib.suppress(ChorusError):  # the caller must see the refusal
                yield from files.delete(pushed)
        raise


def list_page(
    *, status: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[BatchPage]:
    """One page of the batches, newest first.

    Args:
        status: only batches with this status.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(status=status, limit=limit, cursor=cursor)
    return Call(get_page(PATH_OF_BATCHES, query), model_of(BatchPage))


def list_all(*, status: str | None = None) -> Steps[list[BatchJob]]:
    """Every batch, newest first; fetches page after page.

    Args:
        status: only batches with this status.
    """
    return (
        yield from every(
            lambda cursor: list_page(status=status, limit=PAGE, cursor=cursor), lambda page: page.batches
        )
    )


def get(job: str | BatchJob) -> Call[BatchJob]:
    """One batch."""
    return Call(get_page(_path(job), ()), model_of(BatchJob))


def cancel(job: str | BatchJob) -> Call[BatchJob]:
    """Cancel a batch: at once if it is queued, else as soon as its runner sees the request.

    Raises:
        ConflictError: it is over.
    """
    return Call(Request("POST", _path(job, "cancel")), model_of(BatchJob))


def resume(job: str | BatchJob) -> Call[BatchJob]:
    """Queue a batch again that failed or was cancelled. It goes on after its last answered line.

    Raises:
        ConflictError: it neither failed nor was cancelled, or its file was deleted.
    """
    return Call(Request("POST", _path(job, "resume")), model_of(BatchJob))


def past_events(job: str | BatchJob, *, after: int = 0) -> Steps[list[JobEvent]]:
    """The events of a batch so far, without waiting for more.

    Args:
        job: the batch or its id.
        after: number of the last event that the caller has.
    """
    return (yield from read_events(_path(job, "events"), after))


def events(job: str | BatchJob, *, after: int = 0, patience_seconds: float = 300.0) -> Following:
    """A batch's events in order, past ones first, until it is over.

    If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

    Args:
        job: the batch or its id.
        after: number of the last event that the caller has.
        patience_seconds: how long the server may stay away at a time before its error is raised.
    """
    return Following(_path(job, "events"), after, patience_seconds)


class BatchMethods:
    """The methods of `client.batches` that make one call."""

    start = Method(start)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    cancel = Method(cancel)
    resume = Method(resume)
    past_events = Method(past_events)
