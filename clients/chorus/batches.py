"""`client.batches`, blocking and awaited."""

from __future__ import annotations

from chorus.followed import AsyncFollowedJobs, FollowedJobs
from chorus.routes.batches import BatchMethods, events
from chorus.types import BatchJob


class Batches(BatchMethods, FollowedJobs[BatchJob]):
    """`client.batches`: many requests in the lines of a file."""

    _follow = staticmethod(events)


class AsyncBatches(BatchMethods, AsyncFollowedJobs[BatchJob]):
    """`client.batches`: many requests in the lines of a file."""

    _follow = staticmethod(events)
