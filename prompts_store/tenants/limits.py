"""What a tenant or a key may use: one document, which is the route's body and what the store keeps.

    {"per_minute": {"requests": 600}, "per_month": {"tokens": {"soft": 800000, "hard": 1000000}}}

A request here is one item: an HTTP request with 64 inputs counts as 64. Tokens are those that the model reads
and makes, as in usage; work units are counted in `chorus_server.engine.work`. What is left out has no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

_Amount = Annotated[int, Field(ge=0, le=2**53)]

L = TypeVar("L", bound="KeyLimits")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Amounts(_Part):
    """At most so much of each, at once or in a window."""

    requests: _Amount | None = Field(None, description="Items: each input of a batch is one.")
    tokens: _Amount | None = Field(None, description="Tokens read and made, prompt rows among them.")
    work_units: _Amount | None = Field(None, description="See docs/tenants.md.")


class Budget(_Part):
    """Of a calendar month in UTC."""

    soft: _Amount | None = Field(None, description="From here on answers carry a warning.")
    hard: _Amount | None = Field(None, description="From here on requests are refused with 429.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.soft is not None and self.hard is not None and self.soft > self.hard:
            raise PydanticCustomError("limits_order", "It must be at most the hard limit.", {"field": "soft"})
        return self


class MonthlyAmounts(_Part):
    """At most so much of each in a calendar month."""

    requests: Budget | None = None
    tokens: Budget | None = None
    work_units: Budget | None = None


class TenantMonthlyAmounts(MonthlyAmounts):
    """A tenant's, who also tunes."""

    training_steps: Budget | None = None


class StoredAmounts(_Part):
    """At most so much of each, kept at one time."""

    prompts: _Amount | None = Field(None, description="Versions of all tasks that are not deleted.")
    prompt_bytes: _Amount | None = Field(None, description="Bytes of those prompts' values.")
    file_bytes: _Amount | None = Field(None, description="Bytes of data files.")
    unfinished_jobs: _Amount | None = None


class KeyLimits(_Part):
    """What one key may use of what its tenant may."""

    per_minute: Amounts | None = None
    in_flight: Amounts | None = Field(None, description="Taken and not yet answered, at one time.")
    queued: Amounts | None = Field(None, description="Waiting for the model, at one time.")
    per_month: MonthlyAmounts | None = None

    @classmethod
    def read(cls: type[L], document: Mapping[str, Any]) -> L:
        """From what the database keeps. A field that a newer process wrote is passed over, as it is here."""
        try:
            return cls.model_validate(document)
        except ValidationError:
            return cls.model_validate(document, extra="ignore")

    def document(self) -> dict[str, Any]:
        """What the database keeps: without what has no limit."""
        return self.model_dump(exclude_none=True)


class TenantLimits(KeyLimits):
    """What a tenant may use, with all of its keys together."""

    per_month: TenantMonthlyAmounts | None = None
    stored: StoredAmounts | None = None
