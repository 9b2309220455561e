"""`/v1/jobs`: jobs of every kind in one shape."""

from __future__ import annotations

from functools import partial

from chorus.following import Following
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.job_events import read_events
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import GeneralJob, GeneralJobPage, GeneralJobSummary, JobEvent
from chorus.types.tuning import AnyJob
from chorus.wire import Call, Request, Steps, model_of, query_of

PATH_OF_JOBS = "/v1/jobs"


_path = partial(references.job_path, PATH_OF_JOBS)


def list_page(
    *,
    kind: str | None = None,
    status: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[GeneralJobPage]:
    """One page of the jobs, newest first.

    Args:
        kind: only `tuning`, `evaluation`, `calibration` or `batch`.
        status: only jobs with this status.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(kind=kind, status=status, limit=limit, cursor=cursor)
    return Call(get_page(PATH_OF_JOBS, query), model_of(GeneralJobPage))


def list_all(*, kind: str | None = None, status: str | None = None) -> Steps[list[GeneralJobSummary]]:
    """Every job, newest first; fetches page after page.

    Args:
        kind: only `tuning`, `evaluation`, `calibration` or `batch`.
        status: only jobs with this status.
    """
    return (
        yield from every(
            lambda cursor: list_page(kind=kind, status=status, limit=PAGE, cursor=cursor),
            lambda page: page.jobs,
        )
    )


def get(job: str | AnyJob) -> Call[GeneralJob]:
    """One job."""
    return Call(get_page(_path(job), ()), model_of(GeneralJob))


def cancel(job: str | AnyJob) -> Call[GeneralJob]:
    """Cancel a job: at once if it is queued, else as soon as its runner sees the request.

    Raises:
        ConflictError: it is over.
    """
    return Call(Request("POST", _path(job, "cancel")), model_of(GeneralJob))


def resume(job: str | AnyJob) -> Call[GeneralJob]:
    """Queue a job again that failed or was cancelled. It goes on with what it has not done.

    Raises:
        ConflictError: it neither failed nor was cancelled, or one of its files was deleted.
    """
    return Call(Request("POST", _path(job, "resume")), model_of(GeneralJob))


def past_events(job: str | AnyJob, *, after: int = 0) -> Steps[list[JobEvent]]:
    """The events of a job so far, without waiting for more.

    Args:
        job: the job or its id.
        after: number of the last event that the caller has.
    """
    return (yield from read_events(_path(job, "events"), after))


def events(job: str | AnyJob, *, after: int = 0, patience_seconds: float = 300.0) -> Following:
    """A job's events in order, past ones first, until it is over.

    If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

    Args:
        job: the job or its id.
        after: number of the last event that the caller has.
        patience_seconds: how long the server may stay away at a time before its error is raised.
    """
    return Following(_path(job, "events"), after, patience_seconds)


class JobMethods:
    """The methods of `client.jobs` that make one call."""

    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    cancel = Method(cancel)
    resume = Method(resume)
    past_events = Method(past_events)
