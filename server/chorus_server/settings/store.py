"""Settings under `[store]`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chorus_server.settings.values import YEAR_SECONDS, SettingsGroup

STORE_SETTINGS = (
    "data_dir",
    "database_url",
    "blob_url",
    "blob_credentials_file",
    "blob_cache_bytes",
)
"""The settings that say where the store is."""


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
    blob_url: str | None = Field(
        None,
        description="Where blobs and data files are, if not in `data_dir`: s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER. Needs the extra `bucket`. Of s3 it may "
        "say how to reach it: s3://BUCKET?region=eu-west-1, or s3://BUCKET?endpoint=https://HOST "
        "(docs/store.md).",
    )
    blob_credentials_file: Path | None = Field(
        None,
        description="File with the bucket's credentials: for s3 like `~/.aws/credentials`, section "
        "`default`; for gs a service account's JSON. When left out: the environment's.",
    )
    blob_cache_bytes: int = Field(
        4 << 30,
        ge=1 << 20,
        description="Bytes that copies of what is in the bucket may have in `data_dir`.",
    )
    collect_grace_seconds: float = Field(
        3600.0,
        ge=0,
        le=YEAR_SECONDS,
        description="How long a blob must have been unneeded before it is removed; keep it above the time "
        "that a deleted version is read. One of all servers on a database looks as often, but at least once "
        "an hour.",
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
