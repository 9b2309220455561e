"""Settings under `[tuning]`."""

from __future__ import annotations

from pydantic import Field

from server.settings.values import MIB, PathList, SettingsGroup, UrlList


class TuningSettings(SettingsGroup):
    """Whether this process tunes prompts, what that takes of its device, and what jobs may read."""

    tuning_enabled: bool = Field(
        True, description="Run tuning jobs in this process; else they wait for `chorus worker`."
    )
    tuning_share: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of the time that training gets under load; 0 is only when no request waits.",
    )
    tuning_slice_ms: int = Field(
        60,
        ge=1,
        description="Longest device dispatch that jobs are prepared for: a request may wait so long.",
    )
    tuning_keep_days: float = Field(
        14.0,
        ge=0,
        le=36_500,
        description="How long a failed or cancelled job keeps its checkpoint, to be resumed from.",
    )
    tuning_data_paths: PathList = Field(
        (), description="Folders and files on this machine that jobs of any tenant may read."
    )
    tuning_data_urls: UrlList = Field(
        (), description="Beginnings of URLs that jobs of any tenant may fetch, as in `https://host/folder/`."
    )
    tuning_max_file_bytes: int = Field(
        1024 * MIB, ge=1, description="Largest file of training data that is taken."
    )
    tuning_max_unfinished_jobs: int = Field(
        16, ge=1, description="Unfinished tuning jobs of one tenant before it gets 429."
    )
