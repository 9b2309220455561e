"""Bodies of the routes of tenants, keys and the caller itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import AnswerModel, documented
from chorus_server.tenancy.principal import Scope
from chorus_server.validation import Items, RequestModel
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from prompts_store.tenants.records import TenantStatus
from prompts_store.tenants.task_patterns import MAX_PATTERNS
from prompts_store.tenants.tenants import MAX_RETENTION_DAYS

_Name = Annotated[str, Field(min_length=1, max_length=64)]
_DisplayName = Annotated[str, Field(max_length=256)]
_Pattern = Annotated[str, Field(min_length=1, max_length=129)]
_Weight = Annotated[float, Field(strict=False, gt=0, le=1e6)]


def _read_moment(value: object) -> datetime:
    try:
        short = isinstance(value, str) and len(value) <= 64
        moment = datetime.fromisoformat(str(value)) if short else None
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise PydanticCustomError("moment", "Send a moment with its time zone, as 2030-01-31T12:00:00Z")
    return moment


_Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_read_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]
_Scope = Annotated[Scope, Field(strict=False)]


_Days = Annotated[int, Field(ge=1, le=MAX_RETENTION_DAYS)]


class RetentionDays(RequestModel):
    """How long what is written down of a tenant is kept, in days. Whole months (UTC) go, once their end is
    longer ago."""

    usage_days: _Days | None = Field(None, description="Usage. Left out: 400 days.")
    audit_days: _Days | None = Field(None, description="The audit log. Left out: as the server is set up.")


class TenantBody(RequestModel):
    """A new tenant."""

    model_config = ConfigDict(json_schema_extra=documented(examples.TENANT))

    name: _Name = Field(description="Lower-case letters, digits, '.', '_' and '-'; for ever.")
    display_name: _DisplayName = Field("", description="For people.")
    weight: _Weight = Field(1.0, description="Its share of a busy engine against the others'.")
    limits: TenantLimits = Field(TenantLimits(), description="What it may use. Left out: any amount.")
    retention: RetentionDays = Field(RetentionDays(), description="Left out: as for everybody.")


class TenantChanges(RequestModel):
    """What changes of a tenant; what is left out stays."""

    model_config = ConfigDict(json_schema_extra=documented(examples.TENANT_CHANGES))

    display_name: _DisplayName | None = None
    weight: _Weight | None = None
    limits: TenantLimits | None = Field(None, description="In place of all that it had; `{}` removes them.")
    retention: RetentionDays | None = Field(None, description="In place of both that it had.")


class TenantAnswer(AnswerModel):
    """A tenant."""

    tenant: str
    display_name: str
    weight: float
    status: TenantStatus
    limits: TenantLimits
    retention: RetentionDays
    created_at: datetime
    created_by: str
    suspended_at: datetime | None
    deleted_at: datetime | None
    purge_after: datetime | None = Field(
        description="From when on what a deleted tenant had is removed; null when it was, or is not deleted."
    )


class TenantPage(AnswerModel):
    """Tenants by name."""

    tenants: list[TenantAnswer]
    next_cursor: str | None


class KeyBody(RequestModel):
    """A new key."""

    model_config = ConfigDict(json_schema_extra=documented(examples.KEY))
    most: ClassVar[Mapping[str, int]] = {"scopes": len(Scope), "tasks": MAX_PATTERNS}

    name: _Name = Field(description="Of what uses it. Two live keys may share one, to change over.")
    scopes: Items[_Scope] = Field(min_length=1, description="None that the caller's own key lacks.")
    tasks: Items[_Pattern] | None = Field(
        None,
        min_length=1,
        description="Patterns of the tasks and ensembles that it may name: `*` stands for any characters. "
        "What others share is named with its owner, `acme/*`. Left out: any.",
    )
    limits: KeyLimits = Field(
        KeyLimits(), description="What it may use of what its tenant may. Left out: all of that."
    )
    expires_at: _Moment | None = Field(None, description="From when on it is refused. Left out: never.")


class KeyChanges(RequestModel):
    """What changes of a key. For anything else, make another."""

    model_config = ConfigDict(json_schema_extra=documented(examples.KEY_CHANGES))

    limits: KeyLimits = Field(description="In place of all that it had; `{}` removes them.")


class KeyAnswer(AnswerModel):
    """A key, without its secret."""

    id: str
    tenant: str
    public: str = Field(description="The 8 characters of the key that may be shown: `ck_<public>_...`.")
    name: str
    scopes: list[Scope]
    tasks: list[str] | None
    limits: KeyLimits
    status: Literal["live", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute, and a minute or two late.")


class NewKeyAnswer(KeyAnswer):
    """A key that was just made."""

    key: str = Field(description="The key itself. It is shown here and never again.")


class KeyPage(AnswerModel):
    """Keys, newest first."""

    keys: list[KeyAnswer]
    next_cursor: str | None


class OwnTenant(AnswerModel):
    """The caller's tenant."""

    tenant: str
    display_name: str
    weight: float
    status: TenantStatus


class OwnKey(AnswerModel):
    """The caller's key; one from a file of the server's has a name only."""

    id: str | None
    public: str | None
    name: str
    tasks: list[str] | None
    expires_at: datetime | None


class LimitLeft(AnswerModel):
    """What is left of one limit, now."""

    of: Literal["tenant", "key"]
    limit: str = Field(description="Its path: `per_minute.requests`.")
    most: int | None = Field(description="Null for one that only warns.")
    soft: int | None
    used: int = Field(description="Or reserved, for what is being answered.")
    left: int | None
    full_in_seconds: float | None = Field(
        description="Until all of it may be used again; null for what is kept."
    )


class OwnLimits(AnswerModel):
    """What one request may ask for, how many jobs may be unfinished, and what may be used over time."""

    max_body_bytes: int
    max_upload_bytes: int
    max_batch_rows: int
    max_labels: int
    max_deadline_seconds: float
    max_unfinished_jobs: int
    tenant: TenantLimits = Field(description="What the tenant may use; empty for no limits.")
    key: KeyLimits = Field(description="What the key may use of that.")
    left: list[LimitLeft] = Field(description="Of each limit that there is.")


class MeAnswer(AnswerModel):
    """Who asks."""

    tenant: OwnTenant
    key: OwnKey | None = Field(description="Null where no key was needed.")
    scopes: list[Scope]
    limits: OwnLimits
