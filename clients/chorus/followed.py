"""What the methods of every kind of job have beside single calls, blocking and awaited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from chorus.following import Following
from chorus.methods import AsyncOwner, SyncOwner
from chorus.streams import AsyncJobEventStream, JobEventStream
from chorus.types.tuning import AnyJob

J = TypeVar("J", bound=AnyJob)


class FollowedJobs(SyncOwner, Generic[J]):
    """Jobs of one kind.

    Attributes:
        get: one job.
    """

    get: Any
    _follow: ClassVar[Callable[..., Following]]

    def events(self, job: str | AnyJob, *, after: int = 0, patience_seconds: float = 300.0) -> JobEventStream:
        """A job's events in order, past ones first, until it is over.

        If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

        Args:
            job: the job or its id.
            after: number of the last event that the caller has.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        following = type(self)._follow(job, after=after, patience_seconds=patience_seconds)
        return JobEventStream(self._transport.follow(following), following)

    def wait(self, job: str | AnyJob, *, patience_seconds: float = 300.0) -> J:
        """The job once it is over, however it ended; look at its `status`.

        Args:
            job: the job or its id.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        with self.events(job, patience_seconds=patience_seconds) as events:
            for _ in events:
                pass
        found: J = self.get(job)
        return found


class AsyncFollowedJobs(AsyncOwner, Generic[J]):
    """Jobs of one kind.

    Attributes:
        get: one job.
    """

    get: Any
    _follow: ClassVar[Callable[..., Following]]

    def events(
        self, job: str | AnyJob, *, after: int = 0, patience_seconds: float = 300.0
    ) -> AsyncJobEventStream:
        """A job's events in order, past ones first, until it is over. The method itself is not awaited.

        If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

        Args:
            job: the job or its id.
            after: number of the last event that the caller has.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        following = type(self)._follow(job, after=after, patience_seconds=patience_seconds)
        return AsyncJobEventStream(self._transport.follow(following), following)

    async def wait(self, job: str | AnyJob, *, patience_seconds: float = 300.0) -> J:
        """The job once it is over, however it ended; look at its `status`.

        Args:
            job: the job or its id.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        async with self.events(job, patience_seconds=patience_seconds) as events:
            async for _ in events:
                pass
        found: J = await self.get(job)
        return found
