"""Settings under `[store]`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chorus_server.settings.values import YEAR_SECONDS, SettingsGroup


class StoreSettings(SettingsGroup):
    """Where tasks, versions and data files are kept, and when unneeded ones are removed."""

    data_dir: Path = Field(
        Path(".chorus"), description="Folder of the embedded database, blobs and compile cache."
    )
    database_url: str | None = Field(
        None,
        description="Database to use instead of the embedded one: postgresql://USER:PASSWORD@HOST/NAME, or "
        "sqlite:///FILE.",
    )
    collect_interval_seconds: float = Field(
        3600.0,
        ge=0,
        le=YEAR_SECONDS,
        description="How often blobs that no version needs are removed; 0 means never.",
    )
    collect_grace_seconds: float = Field(
        3600.0,
        ge=0,
        le=YEAR_SECONDS,
        description="How long a blob must have been unneeded; keep it above the time that a deleted version "
        "is read.",
    )
    tenant_grace_seconds: float = Field(
        604_800.0,
        ge=0,
        le=10 * YEAR_SECONDS,
        description="How long what a deleted tenant had is kept.",
    )
    audit_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="How long the audit log of a tenant is kept that has no retention of its own, and the "
        "store's; whole months go. When left out: for ever.",
    )
