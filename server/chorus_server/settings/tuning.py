"""Settings under `[tuning]`."""

from __future__ import annotations

from pydantic import Field

from chorus_server.settings.values import MIB, PathList, SettingsGroup, UrlList


class TuningSettings(SettingsGroup):
    """Whether this process tunes prompts, how much of its device that may take, and what jobs may read."""

    tuning_enabled: bool = Field(
        True, description="Run tuning jobs in this process; if false, they wait for `chorus worker`."
    )
    tuning_share: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of the time that training gets under load; with 0 it runs only when no request "
        "waits.",
    )
    tuning_slice_ms: int = Field(
        60,
        ge=1,
        description="Longest device step of a tuning job: a request may have to wait this long.",
    )
    tuning_data_paths: PathList = Field(
        (), description="Folders and files on this machine that jobs of any tenant may read."
    )
    tuning_data_urls: UrlList = Field(
        (),
        description="Prefixes of the URLs that jobs of any tenant may fetch, as in `https://host/folder/`.",
    )
    tuning_max_file_bytes: int = Field(
        1024 * MIB, ge=1, description="Largest file of training data that the server accepts."
    )
