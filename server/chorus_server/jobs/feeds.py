"""Follows jobs: each followed job has one poller, however many follow it.

Events are written to the store by whoever runs the job, often another process. The poller reads new events
and keeps the last few. Followers take them from there, and read the store themselves only when they are
further behind. A follower is only a position, so a slow one takes no memory.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from chorus_server.errors import ChorusError, OverloadedError, QuotaExceededError, ShuttingDownError
from prompts_store.errors import StoreError
from prompts_store.jobs.records import OVER, Job, JobEvent
from prompts_store.store import PromptStore

LOG = logging.getLogger("chorus.feeds")

PAGE_EVENTS = 500
KEPT_EVENTS = 256
FAILURES = 20
"""Polls that may fail in a row before the followers are told."""

Pause = Callable[[float], Awaitable[None]]
EventsAfter = Callable[[int], Awaitable[Sequence[JobEvent]]]


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """Limits of following.

    Attributes:
        followers: of all tenants together.
        followers_per_tenant: of one tenant.
        poll_seconds: between two polls of a followed job.
        keep_alive_seconds: of silence, after which followers get an empty batch.
    """

    followers: int = 256
    followers_per_tenant: int = 32
    poll_seconds: float = 0.3
    keep_alive_seconds: float = 15.0

    @property
    def keep_alive_polls(self) -> int:
        """`keep_alive_seconds`, in polls."""
        return max(1, math.ceil(self.keep_alive_seconds / self.poll_seconds))


class Watch:
    """A followed job: its newest events, whether it is over, and who waits for more.

    Args:
        read_job: reads the job's record.
        read_events: reads at most `PAGE_EVENTS` events after a sequence number, in order.
        after: sequence number after which the kept events begin.
    """

    def __init__(self, read_job: Callable[[], Awaitable[Job]], read_events: EventsAfter, after: int) -> None:
        self._read_job = read_job
        self._read_events = read_events
        self._kept: deque[JobEvent] = deque(maxlen=KEPT_EVENTS)
        self._start = after
        self._polled = asyncio.Event()
        self.last = after
        self.followers = 0
        self.polls = 0
        self.failures = 0
        self.over: Job | None = None
        self.error: Exception | None = None
        self.poller: asyncio.Task[None] | None = None

    async def poll(self) -> None:
        """Read new events, and wake the followers. Once the job is seen to be over, all its events were
        read."""
        try:
            job = await self._read_job()  # before the events, so that those include its last one
            while page := await self._read_events(self.last):
                self._keep(page)
                if len(page) < PAGE_EVENTS:
                    break
            self.failures = 0
            if job.status in OVER:
                self.over = job
        except (ChorusError, StoreError) as error:
            self.failures += 1
            if self.failures >= FAILURES:
                self.error = error
        finally:
            self.polls += 1
            self._polled.set()
            self._polled = asyncio.Event()

    def _keep(self, page: Sequence[JobEvent]) -> None:
        for event in page:
            if len(self._kept) == KEPT_EVENTS:
                self._start = self._kept[0].seq
            self._kept.append(event)
        self.last = page[-1].seq

    def since(self, after: int) -> list[JobEvent] | None:
        """The events after a sequence number; None if some of them are no longer kept."""
        if after < self._start:
            return None
        return [event for event in self._kept if event.seq > after]

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to poll for."""
        return self.over is not None or self.error is not None

    async def next_poll(self) -> None:
        """Wait for the next poll."""
        await self._polled.wait()


class JobFeeds:
    """All jobs that are followed.

    Args:
        store: holds the jobs.
        call: makes a call of the store, off the event loop.
        closing: whether the server is ending, when followers must leave.
        pause: awaited between polls; tests pass their own.
    """

    def __init__(
        self,
        store: PromptStore,
        call: Callable[..., Awaitable[Any]],
        closing: Callable[[], bool],
        limits: FeedLimits | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._store = store
        self._call = call
        self._closing = closing
        self.limits = limits or FeedLimits()
        self._pause = pause
        self._watches: dict[tuple[str, str], Watch] = {}
        self._followers: Counter[str] = Counter()

    @property
    def followers(self) -> int:
        """Number of followers now."""
        return self._followers.total()

    @property
    def polled(self) -> int:
        """Number of jobs that are polled now."""
        return len(self._watches)

    @contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """Take a place for a follower, until the block ends.

        Raises:
            QuotaExceededError: the tenant has too many followers.
            OverloadedError: the server has too many followers.
        """
        if self._followers[tenant] >= self.limits.followers_per_tenant:
            raise QuotaExceededError(
                f"{self.limits.followers_per_tenant} connections of this tenant follow jobs already: close "
                "one, or list the events with ?follow=false.",
                retry_after_seconds=5,
            )
        if self.followers >= self.limits.followers:
            raise OverloadedError(
                f"{self.limits.followers} connections follow jobs already: try again, or list the events "
                "with ?follow=false.",
                retry_after_seconds=5,
            )
        self._followers[tenant] += 1
        try:
            yield
        finally:
            self._followers[tenant] -= 1
            self._followers += Counter()  # drops tenants that have none

    async def batches(
        self, tenant: str, job: str, after: int
    ) -> AsyncGenerator[Sequence[JobEvent] | Job, None]:
        """What a follower gets: events in order, an empty batch after a long silence, and at the end the job.

        Raises:
            ShuttingDownError: the server is ending.
            ChorusError, StoreError: the events cannot be read.
        """
        read = self._reader(tenant, job)
        while page := await read(after):
            after = page[-1].seq
            yield page
            if len(page) < PAGE_EVENTS:
                break
        with self._watched(tenant, job, after) as watch:
            spoke_at = watch.polls
            while True:
                if self._closing():
                    raise ShuttingDownError("The server is shutting down: come back with the last id.")
                kept = watch.since(after)
                batch = kept if kept is not None else await read(after)
                if batch:
                    after, spoke_at = batch[-1].seq, watch.polls
                    yield batch
                elif watch.over is not None:
                    yield watch.over
                    return
                elif watch.error is not None:
                    raise watch.error
                else:
                    await watch.next_poll()
                    if watch.polls - spoke_at >= self.limits.keep_alive_polls:
                        spoke_at = watch.polls
                        yield ()

    def _reader(self, tenant: str, job: str) -> EventsAfter:
        async def read(after: int) -> Sequence[JobEvent]:
            found: list[JobEvent] = await self._call(
                self._store.job_events, tenant, job, after=after, limit=PAGE_EVENTS
            )
            return found

        return read

    @contextmanager
    def _watched(self, tenant: str, job: str, after: int) -> Iterator[Watch]:
        key = (tenant, job)
        watch = self._watches.get(key)
        if watch is None:
            watch = Watch(
                lambda: self._call(self._store.get_job, tenant, job), self._reader(tenant, job), after
            )
            self._watches[key] = watch
            watch.poller = asyncio.create_task(self._poll(key, watch))
        watch.followers += 1
        try:
            yield watch
        finally:
            watch.followers -= 1
            if not watch.followers:
                self._drop(key, watch)
                if watch.poller is not None:
                    watch.poller.cancel()

    async def _poll(self, key: tuple[str, str], watch: Watch) -> None:
        try:
            while True:
                await watch.poll()
                if watch.ended:
                    break
                await self._pause(self.limits.poll_seconds)
        except Exception as error:  # a defect: tell the followers, who would wait for ever
            LOG.exception("following a job failed")
            watch.error = error
            raise
        finally:
            self._drop(key, watch)  # later followers start anew, since the job may be resumed

    def _drop(self, key: tuple[str, str], watch: Watch) -> None:
        if self._watches.get(key) is watch:
            del self._watches[key]
