"""Settings under `[log]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from chorus_server.settings.values import SettingsGroup
from chorus_server.urls import split_http_url


def _http_url(value: str) -> str:
    split_http_url(value)
    return value


class LogSettings(SettingsGroup):
    """What the log, the metrics and the traces report about requests."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines for people, or one JSON object a line for programs that collect logs."
    )
    access_log: bool = Field(
        True,
        description="Write one line for each request, without its content. Health checks and scrapes are "
        "logged at debug. Requests refused in an overload share one line a second.",
    )
    journal_file: Path | None = Field(
        None, description="Append-only admission journal: one line for each accepted request."
    )
    traces_url: Annotated[str, AfterValidator(_http_url)] | None = Field(
        None,
        description="Where spans are posted (OTLP over HTTP), as in `http://collector:4318/v1/traces`. "
        "Nothing is recorded without it.",
    )
    traces_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that are recorded; a caller that sends `traceparent` decides itself.",
    )
