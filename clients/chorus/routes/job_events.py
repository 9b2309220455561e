"""The events of a job, whatever its kind."""

from __future__ import annotations

from chorus.routes.tasks import get_page
from chorus.types import JobEvent, JobEventList
from chorus.wire import Call, Steps, model_of, query_of

_PAGE = 500


def read_events(path: str, after: int) -> Steps[list[JobEvent]]:
    """Those that there are, without waiting for more.

    Args:
        path: of the job's events.
        after: number of the last event that the caller has.
    """
    found: list[JobEvent] = []
    while True:
        query = query_of(follow="false", after=after, limit=_PAGE)
        page = yield from Call(get_page(path, query), model_of(JobEventList))
        found.extend(page.events)
        if len(page.events) < _PAGE:
            return found
        after = page.events[-1].seq
