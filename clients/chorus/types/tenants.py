"""Tenants, their keys, and who asks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from chorus.types.base import Wire


class Tenant(Wire):
    """An owner of tasks, ensembles, files, jobs and keys.

    Attributes:
        weight: its share of a busy server against the others'.
        status: `active`, `suspended` or `deleted`.
        limits: what it may use, as it was given; empty for any amount.
        retention: for how many days its usage and its audit log are kept, `usage_days` and `audit_days`; None
            for as long as everybody's.
        purge_after: when what a deleted tenant had is removed; None if it was removed, or is not deleted.
    """

    tenant: str
    display_name: str = ""
    weight: float = 1.0
    status: str
    limits: dict[str, Any] = Field(default_factory=dict)
    retention: dict[str, int | None] = Field(default_factory=dict)
    created_at: datetime
    created_by: str = ""
    suspended_at: datetime | None = None
    deleted_at: datetime | None = None
    purge_after: datetime | None = None


class TenantPage(Wire):
    """Part of the list of tenants, by name. `next_cursor` is None on the last page."""

    tenants: list[Tenant]
    next_cursor: str | None = None


class Key(Wire):
    """A tenant's key, without its secret.

    Attributes:
        public: the 8 characters of the key that may be shown: `ck_<public>_...`.
        name: of what uses the key; two live keys may have the same name.
        tasks: patterns of the tasks and ensembles that the key may name; None for any.
        limits: what it may use of what its tenant may; empty for all of that.
        status: `live`, `expired` or `revoked`.
        last_used_at: to the minute, and a minute or two late; None if it was never used.
    """

    id: str
    tenant: str
    public: str
    name: str
    scopes: list[str]
    tasks: list[str] | None = None
    limits: dict[str, Any] = Field(default_factory=dict)
    status: str
    created_at: datetime
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class NewKey(Key):
    """A key that was just made.

    Attributes:
        key: the key itself, which the server shows only once. It is not in the `repr`.
    """

    # An answer that cannot be read must not show the key in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    key: str = Field(repr=False)


class KeyPage(Wire):
    """Part of the list of a tenant's keys, newest first. `next_cursor` is None on the last page."""

    keys: list[Key]
    next_cursor: str | None = None


class OwnTenant(Wire):
    """The caller's tenant."""

    tenant: str
    display_name: str = ""
    weight: float = 1.0
    status: str


class OwnKey(Wire):
    """The caller's key. One from a file of the server's has a name only."""

    id: str | None = None
    public: str | None = None
    name: str
    tasks: list[str] | None = None
    expires_at: datetime | None = None


class LimitLeft(Wire):
    """What is left of one limit of the tenant (`of` is `tenant`) or the key. `limit` is its path, such as
    `per_minute.requests`; `most` and `left` are None for one that only warns, `full_in_seconds` for what is
    kept.
    """

    of: str
    limit: str
    most: int | None = None
    soft: int | None = None
    used: int
    left: int | None = None
    full_in_seconds: float | None = None


class OwnLimits(Wire):
    """How much one request may ask for, how many of the tenant's jobs may be unfinished, and what the tenant
    and the key may use over time.
    """

    max_body_bytes: int
    max_upload_bytes: int
    max_batch_rows: int
    max_labels: int
    max_deadline_seconds: float
    max_unfinished_jobs: int
    tenant: dict[str, Any] = Field(default_factory=dict)
    key: dict[str, Any] = Field(default_factory=dict)
    left: list[LimitLeft] = Field(default_factory=list)


class Me(Wire):
    """Who asks.

    Attributes:
        key: None if the server needed no key.
    """

    tenant: OwnTenant
    key: OwnKey | None = None
    scopes: list[str]
    limits: OwnLimits
