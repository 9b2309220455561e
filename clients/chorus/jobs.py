"""`client.jobs`, blocking and awaited."""

from __future__ import annotations

from chorus.followed import AsyncFollowedJobs, FollowedJobs
from chorus.routes.jobs import JobMethods, events
from chorus.types import GeneralJob


class Jobs(JobMethods, FollowedJobs[GeneralJob]):
    """`client.jobs`: jobs of every kind, by their ids."""

    _follow = staticmethod(events)


class AsyncJobs(JobMethods, AsyncFollowedJobs[GeneralJob]):
    """`client.jobs`: jobs of every kind, by their ids."""

    _follow = staticmethod(events)
