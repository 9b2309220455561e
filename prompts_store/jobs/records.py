"""The records of jobs that the store returns: their state, their events, and the lease of the process that
runs one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

JobKind = Literal["tuning", "evaluation", "calibration", "batch"]
JobStatus = Literal["queued", "preparing", "running", "succeeded", "failed", "cancelled"]

KINDS: tuple[JobKind, ...] = get_args(JobKind)

# A process is running it.
ACTIVE: tuple[JobStatus, ...] = ("preparing", "running")
UNFINISHED: tuple[JobStatus, ...] = ("queued", *ACTIVE)
OVER: tuple[JobStatus, ...] = ("succeeded", "failed", "cancelled")
STATUSES: tuple[JobStatus, ...] = (*UNFINISHED, *OVER)


MATRIX_DTYPE = "matrix_dtype"
"""In `settled` of a job's progress: the type of the base's matrices that the job was begun with, and keeps.
Jobs that were begun before this was kept have float32."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of any kind.

    Attributes:
        id: `job-` and 24 hexadecimal digits.
        kind: the kind of work.
        spec: what to do, as given when it was created.
        started_at: when a process first took it; None while it waits for that.
        finished_at: None until it is over.
        error: why it failed, `{"code", "message", ...}`.
        progress: how far it is, as reported by the process that runs it.
        result: what it made: versions, metrics.
        cancel_requested: whether the process that runs it must stop.
        attempt: how many times a process took it; 0 before the first.
        paused: whether it waits until it is resumed. The process that runs it must give it back.
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
    paused: bool = False


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened in a job.

    Attributes:
        seq: 1, 2, ... in each job, without gaps.
    """

    seq: int
    at: datetime
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one job, until the lease runs out and another process takes the job.

    Attributes:
        owner: who runs it; shown to people.
        token: the job's fencing token. The process that takes the job next gets a greater one, and from then
            on nothing written with this one is accepted.
        expires_at: renew the lease before this time.
    """

    job_id: str
    tenant: str
    owner: str
    token: int
    expires_at: datetime
