"""The answer of the route of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel


class AuditRowAnswer(AnswerModel):
    """One change."""

    tenant: str = Field(description="Whose log this is; empty in that of the whole store.")
    sequence: int = Field(description="1, 2, ... without holes in each log.")
    at: datetime
    actor: str = Field(description="The id of a key, else its name; `chorus` for the server itself.")
    address: str
    request_id: str
    action: str = Field(description="As `alias.move`.")
    subject: str = Field(description="As `sst2@live`; empty for the tenant itself.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    previous: str = Field(description="The hash of the row before; zeros in the first.")
    hash: str = Field(
        description="SHA-256 of this row without `hash`, as JSON with sorted keys and no whitespace, ASCII."
    )


class AuditPage(AnswerModel):
    """Rows, oldest first."""

    rows: list[AuditRowAnswer]
    next_after: int | None = Field(description="Send it as `after` for more; null when there were no more.")
