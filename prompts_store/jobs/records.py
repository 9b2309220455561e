"""What the store hands out about jobs: how they are, their events, and the lease of who runs one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

JobKind = Literal["tuning"]
JobStatus = Literal["queued", "preparing", "running", "succeeded", "failed", "cancelled"]

KINDS: tuple[JobKind, ...] = get_args(JobKind)

# In the hands of somebody who runs it.
ACTIVE: tuple[JobStatus, ...] = ("preparing", "running")
UNFINISHED: tuple[JobStatus, ...] = ("queued", *ACTIVE)
OVER: tuple[JobStatus, ...] = ("succeeded", "failed", "cancelled")
STATUSES: tuple[JobStatus, ...] = (*UNFINISHED, *OVER)


@dataclass(frozen=True, slots=True)
class Job:
    """A job of any kind.

    Attributes:
        id: `job-` and 24 hexadecimal digits.
        kind: what is done in it.
        spec: what to do, as it was created.
        started_at: when somebody first took it; None while it waits for that.
        finished_at: None until it is over.
        error: why it failed, `{"code", "message", ...}`.
        progress: how far it is, in the words of whoever runs it.
        result: what it made: versions, metrics.
        cancel_requested: whoever runs it is to stop.
        attempt: how often somebody took it; 0 before the first time.
    """

    id: str
    kind: JobKind
    tenant: str
    status: JobStatus
    spec: Mapping[str, Any]
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: Mapping[str, Any] | None
    progress: Mapping[str, Any]
    result: Mapping[str, Any]
    cancel_requested: bool
    attempt: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened in a job.

    Attributes:
        seq: 1, 2, ... in each job, without holes.
    """

    seq: int
    at: datetime
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one job, until it runs out and another takes it.

    Attributes:
        owner: who runs it, for people.
        token: the job's fencing token: whoever takes the job next gets a greater one, and from then on
            nothing written with this one is accepted.
        expires_at: renew it before.
    """

    job_id: str
    tenant: str
    owner: str
    token: int
    expires_at: datetime
