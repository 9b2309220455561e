"""Errors of the store. Each has a stable `code` and, if the caller's input is at fault, a `field`.

StoreError                 store_unavailable
├── InvalidError           invalid_input (a closed list of narrower codes, see each raiser);
│   │                      idempotency_key_reused
│   └── ArtifactError      a reason of `prompts_store.artifacts.REASONS`
├── NotFoundError          not_found, unknown_task, unknown_version, unknown_alias, unknown_ensemble,
│                          unknown_file, unknown_job, unknown_tenant, unknown_key, unknown_grant, no_store
├── ConflictError          conflict, file_in_use, file_deleted, job_over, job_not_stopped, tenant_exists,
│                          too_many_keys, key_over, too_many_grants, too_many_aliases, other_store,
│                          mass_removal, store_not_empty, alias_moved
│   └── LeaseLostError     lease_lost
├── LimitError             limit_exceeded, too_many_jobs
└── CorruptError           corrupt_blob, corrupt_file
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


class StoreError(Exception):
    """The store could not do it. Nothing was half-written.

    Args:
        message: one sentence for a person, with what to do next.
        field: the argument at fault, as a dotted path.
        code: a narrower code, in place of the class's own.
    """

    default_code: ClassVar[str] = "store_unavailable"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code or self.default_code


class InvalidError(StoreError):
    """A name, reference, template, setting or artifact is not valid."""

    default_code = "invalid_input"


class ArtifactError(InvalidError):
    """An uploaded file is not a prompt that this server can use; `code` is the reason."""

    default_code = "invalid_artifact"


class NotFoundError(StoreError):
    """There is no such object in this tenant."""

    default_code = "not_found"


class ConflictError(StoreError):
    """The object is not in a state that allows this."""

    default_code = "conflict"


class LeaseLostError(ConflictError):
    """The job was cancelled, finished, released or taken over. The process that ran it must stop and write
    nothing."""

    default_code = "lease_lost"


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit of a tenant's that leaves no room.

    Attributes:
        limit: its path in the document of limits, `stored.prompts`.
        window: None for what is kept at one time.
        used: of `most`, before what was refused.
        of: whose limit it is.
    """

    limit: str
    window: Literal["minute", "month"] | None
    most: int
    used: int
    of: Literal["tenant", "key"] = "tenant"


class LimitError(StoreError):
    """The tenant has as many of these as it may have.

    Args:
        quota: which limit of the tenant's own it is; None for a limit of all tenants.
        retry_after_seconds: when there is room again, if that is known.
    """

    default_code = "limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        code: str | None = None,
        quota: Quota | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, field=field, code=code)
        self.quota = quota
        self.retry_after_seconds = retry_after_seconds


class CorruptError(StoreError):
    """Stored bytes do not match their digest."""

    default_code = "corrupt_blob"
