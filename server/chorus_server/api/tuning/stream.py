"""A followed job as server-sent events. Each `id` is the event's number, so that a caller can reconnect."""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing

from starlette.types import Receive, Scope, Send

from chorus_server.api.door.sse import Emit, EventResponse
from chorus_server.api.http.errors import error_body
from chorus_server.api.tuning.records import event_json
from chorus_server.errors import ChorusError
from chorus_server.jobs.feeds import JobFeeds
from prompts_store.errors import StoreError
from prompts_store.jobs.records import Job


class JobEventStream(EventResponse):
    """Sends a job's events after the last one that the caller has, and those to come. The last is `done`,
    once the job is over.

    If the server ends or the store fails, the stream ends with an `error` event, and the caller should
    reconnect.

    Args:
        after: number of the last event that the caller has.
        place: the follower's place, given back when the stream ends, however it ends.
    """

    def __init__(
        self,
        feeds: JobFeeds,
        job: Job,
        after: int,
        request_id: str,
        place: AbstractContextManager[object],
    ) -> None:
        super().__init__()
        self._feeds = feeds
        self._job = job
        self._after = after
        self._request_id = request_id
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)

    async def send_events(self, emit: Emit) -> None:
        """Send every event as it comes, and comments in between."""
        try:
            async with aclosing(self._feeds.batches(self._job.tenant, self._job.id, self._after)) as batches:
                async for batch in batches:
                    if isinstance(batch, Job):
                        await emit("done", {"id": batch.id, "status": batch.status})
                    elif not batch:
                        await emit.keep_alive()
                    else:
                        for event in batch:
                            await emit(event.kind, event_json(event), id=event.seq)
        except (ChorusError, StoreError) as error:
            await emit("error", {"error": error_body(error, self._request_id)})
