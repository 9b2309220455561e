"""`client.evaluations`, blocking and awaited."""

from __future__ import annotations

from chorus.followed import AsyncFollowedJobs, FollowedJobs
from chorus.routes.evaluations import EvaluationMethods, events
from chorus.types import Evaluation


class Evaluations(EvaluationMethods, FollowedJobs[Evaluation]):
    """`client.evaluations`: how good answers are on a file."""

    _follow = staticmethod(events)


class AsyncEvaluations(EvaluationMethods, AsyncFollowedJobs[Evaluation]):
    """`client.evaluations`: how good answers are on a file."""

    _follow = staticmethod(events)
