"""Settings under `[log]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from server.settings.values import SettingsGroup


class LogSettings(SettingsGroup):
    """What is told of requests, in lines and in series."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log level."
    )
    access_log: bool = Field(
        True,
        description="Write one line for each request, without its content; for health and scrapes at debug. "
        "What an overload refuses shares a line a second.",
    )
    journal_file: Path | None = Field(
        None, description="Append-only admission journal: one line for each accepted request."
    )
    metrics_task_series: int = Field(
        200, ge=0, description="Tasks with metric series of their own; later ones are counted as `other`."
    )
