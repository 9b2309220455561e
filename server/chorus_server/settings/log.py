"""Settings under `[log]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from chorus_server.settings.values import SettingsGroup


class LogSettings(SettingsGroup):
    """What the log and the metrics report about requests."""

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
    metrics_task_series: int = Field(
        200, ge=0, description="Tasks with metric series of their own; later ones are counted as `other`."
    )
