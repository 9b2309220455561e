"""`client.evaluations`, blocking and awaited."""

from __future__ import annotations

from chorus.methods import AsyncOwner, SyncOwner
from chorus.routes.evaluations import EvaluationMethods
from chorus.routes.evaluations import events as follow
from chorus.streams import AsyncJobEventStream, JobEventStream
from chorus.types import Evaluation, EvaluationSummary


class Evaluations(EvaluationMethods, SyncOwner):
    """`client.evaluations`: how good answers are on a file."""

    def events(
        self, job: str | EvaluationSummary, *, after: int = 0, patience_seconds: float = 300.0
    ) -> JobEventStream:
        """An evaluation's events in order, past ones first, until it is over.

        If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

        Args:
            job: the evaluation or its id.
            after: number of the last event that the caller has.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        following = follow(job, after=after, patience_seconds=patience_seconds)
        return JobEventStream(self._transport.follow(following), following)

    def wait(self, job: str | EvaluationSummary, *, patience_seconds: float = 300.0) -> Evaluation:
        """The evaluation once it is over, however it ended; look at its `status`.

        Args:
            job: the evaluation or its id.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        with self.events(job, patience_seconds=patience_seconds) as events:
            for _ in events:
                pass
        return self.get(job)


class AsyncEvaluations(EvaluationMethods, AsyncOwner):
    """`client.evaluations`: how good answers are on a file."""

    def events(
        self, job: str | EvaluationSummary, *, after: int = 0, patience_seconds: float = 300.0
    ) -> AsyncJobEventStream:
        """An evaluation's events in order, past ones first, until it is over. The method is not awaited.

        If the connection breaks or the server restarts, it reconnects; no event is lost or comes twice.

        Args:
            job: the evaluation or its id.
            after: number of the last event that the caller has.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        following = follow(job, after=after, patience_seconds=patience_seconds)
        return AsyncJobEventStream(self._transport.follow(following), following)

    async def wait(self, job: str | EvaluationSummary, *, patience_seconds: float = 300.0) -> Evaluation:
        """The evaluation once it is over, however it ended; look at its `status`.

        Args:
            job: the evaluation or its id.
            patience_seconds: how long the server may stay away at a time before its error is raised.
        """
        async with self.events(job, patience_seconds=patience_seconds) as events:
            async for _ in events:
                pass
        return await self.get(job)
