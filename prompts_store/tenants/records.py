"""What the store hands out about tenants, their keys and what changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from prompts_store.tenants.limits import KeyLimits, TenantLimits

TenantStatus = Literal["active", "suspended", "deleted"]
TENANT_STATUSES: tuple[TenantStatus, ...] = get_args(TenantStatus)

Scope = Literal["infer", "prompts:read", "prompts:write", "tune", "metrics:read", "admin", "operator"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`admin` is for its own tenant, `operator` for all; what each lets through is the server's to say."""

ChangeKind = Literal[
    "tenant_created",
    "tenant_updated",
    "tenant_suspended",
    "tenant_resumed",
    "tenant_deleted",
    "tenant_purged",
    "key_created",
    "key_updated",
    "key_revoked",
    "alias_moved",
    "alias_removed",
    "task_deleted",
    "version_deleted",
    "version_calibrated",
    "ensemble_published",
    "ensemble_deleted",
    "ensemble_alias_moved",
    "ensemble_alias_removed",
    "pack_published",
    "pack_deleted",
    "pack_alias_moved",
    "pack_alias_removed",
    "task_shared",
    "task_unshared",
    "ensemble_shared",
    "ensemble_unshared",
    "pack_shared",
    "pack_unshared",
    "job_queued",
]
"""A newer process may write others: whoever does not know one takes it as a change of everything."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a tenant's usage and audit rows are kept, in days; None: as long as everybody's."""

    usage_days: int | None = None
    audit_days: int | None = None


@dataclass(frozen=True, slots=True)
class StoredUse:
    """What a tenant uses of what it keeps, by the names of `limits.StoredAmounts`.

    Attributes:
        prompts: live versions of all of its tasks.
        prompt_bytes: of the values of those.
        training_steps: of this calendar month, UTC: done, and reserved by unfinished jobs.
    """

    prompts: int
    prompt_bytes: int
    file_bytes: int
    unfinished_jobs: int
    training_steps: int


@dataclass(frozen=True, slots=True)
class Tenant:
    """An owner of tasks, ensembles, files, jobs and keys.

    Attributes:
        display_name: for people; empty where nobody gave one.
        weight: its share of a busy engine against the others'.
        limits: what it may use.
        suspended_at: None unless it is suspended.
        purge_after: when what a deleted tenant had goes; None when it has gone.
    """

    name: str
    display_name: str
    weight: float
    status: TenantStatus
    limits: TenantLimits
    retention: Retention
    created_at: datetime
    created_by: str = ""
    suspended_at: datetime | None = None
    deleted_at: datetime | None = None
    purge_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A tenant's key, without its secret.

    Attributes:
        id: `key-` and 24 hexadecimal digits.
        public: the 8 characters of the key by which it is found and may be shown.
        name: of what uses it; two live keys may have one name, for rotation.
        scopes: in the order of `SCOPES`.
        tasks: patterns of the tasks and ensembles that it may name, see `task_patterns`; None: any.
        limits: what it may use of what its tenant may.
        expires_at: from when it is refused.
        last_used_at: to the minute, rounded down; None before the first time.
    """

    id: str
    tenant: str
    public: str
    name: str
    scopes: tuple[Scope, ...]
    tasks: tuple[str, ...] | None
    limits: KeyLimits
    created_at: datetime
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class FoundKey:
    """What is needed to let a caller in, or not.

    Attributes:
        key: of any state: whether it is live is for the caller to ask.
        digest: of the whole key, see `key_format.matches`.
        status: the tenant's, also `deleted`.
        weight: the tenant's.
        tenant_limits: the tenant's, beside the key's own.
    """

    key: Key
    digest: str
    status: TenantStatus
    weight: float
    tenant_limits: TenantLimits


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that signed in to the console.

    Attributes:
        public: of the stored key that it signed in with; None for a key from a file.
        seal: by which a key from a file is known again.
        expires_at: from when it is refused.
    """

    tenant: str
    public: str | None
    seal: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """Something that other processes may have in a cache is not as it was.

    Attributes:
        number: 1, 2, ... without holes, in the order in which changes became visible.
        kind: a `ChangeKind`, or one that this code does not know yet.
        subject: what of the tenant: nothing, a key's public part, `task`, `task@3`, `task@alias`, or a
            job's kind.
    """

    number: int
    at: datetime
    kind: str
    tenant: str
    subject: str


@dataclass(frozen=True, slots=True)
class Changes:
    """The next part of the feed.

    Attributes:
        items: in order; empty where there is nothing new, and where the reader has fallen behind.
        behind: what came next is no longer kept, or the reader's number was never given: drop all caches.
        last: ask for what comes after this one next.
    """

    items: tuple[Change, ...]
    behind: bool
    last: int
