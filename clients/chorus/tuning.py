"""`client.files` and `client.tuning`, blocking and awaited."""

from __future__ import annotations

from chorus.methods import AsyncOwner, SyncOwner
from chorus.routes.files import FileMethods
from chorus.routes.tuning import TuningMethods
from chorus.routes.tuning import events as follow
from chorus.streams import AsyncJobEventStream, JobEventStream
from chorus.types import Job, JobSummary


class Files(FileMethods, SyncOwner):
    """`client.files`: training data."""


class AsyncFiles(FileMethods, AsyncOwner):
    """`client.files`: training data."""


class Tuning(TuningMethods, SyncOwner):
    """`client.tuning`: jobs that make new prompts."""

    def events(
        self, job: str | JobSummary, *, after: int = 0, patience_seconds: float = 300.0
    ) -> JobEventStream:
        """A job's events in order, past ones first, until the job is over.

        If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

        Args:
            job: the job or its id.
            after: number of the last event that the caller has.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        following = follow(job, after=after, patience_seconds=patience_seconds)
        return JobEventStream(self._transport.follow(following), following)

    def wait(self, job: str | JobSummary, *, patience_seconds: float = 300.0) -> Job:
        """The job once it is over, however it ended; look at its `status`.

        Args:
            job: the job or its id.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        with self.events(job, patience_seconds=patience_seconds) as events:
            for _ in events:
                pass
        return self.get(job)


class AsyncTuning(TuningMethods, AsyncOwner):
    """`client.tuning`: jobs that make new prompts."""

    def events(
        self, job: str | JobSummary, *, after: int = 0, patience_seconds: float = 300.0
    ) -> AsyncJobEventStream:
        """A job's events in order, past ones first, until the job is over. The method itself is not awaited.

        If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

        Args:
            job: the job or its id.
            after: number of the last event that the caller has.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        following = follow(job, after=after, patience_seconds=patience_seconds)
        return AsyncJobEventStream(self._transport.follow(following), following)

    async def wait(self, job: str | JobSummary, *, patience_seconds: float = 300.0) -> Job:
        """The job once it is over, however it ended; look at its `status`.

        Args:
            job: the job or its id.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        async with self.events(job, patience_seconds=patience_seconds) as events:
            async for _ in events:
                pass
        return await self.get(job)
