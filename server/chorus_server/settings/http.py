"""Settings under `[http]`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chorus_server.settings.values import YEAR_SECONDS, SettingsGroup


class DeprecatedSettings(SettingsGroup):
    """Names of 0.1.0 that still work. A start that is given one says in the log what to do instead."""

    api_key_file: Path | None = Field(
        None,
        description="Deprecated, make a key at `/v1/keys` instead: file with a bearer key of `tenant` (16 "
        "characters or more).",
    )
    scrape_token_file: Path | None = Field(
        None,
        description="Deprecated, make a key with the scope `metrics:read` instead: file with a bearer token "
        "that reads `/metrics` and nothing else.",
    )


DEPRECATED = tuple(DeprecatedSettings.model_fields)


class HttpSettings(DeprecatedSettings):
    """Where the server listens, who may use it, and how it ends."""

    http_host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Any address but loopback needs a key or `--insecure-bind`.",
    )
    http_port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one.")
    insecure_bind: bool = Field(
        False,
        description="Allow an address that others can reach without a key: all of them, and every web page "
        "that they open, can then use and change everything.",
    )
    operator_key_file: Path | None = Field(
        None,
        description="File with a bearer key that may do everything, also make tenants and keys (16 "
        "characters or more).",
    )
    console: bool | None = Field(
        None,
        description="Serve the console, pages for browsers, at `/console`. When left out: yes, unless others "
        "can reach the server without a key.",
    )
    tenant: str = Field(
        "default",
        description="Tenant of the keys that come from files, and of everybody when there is no key.",
    )
    keep_alive_seconds: int = Field(
        75, ge=1, le=YEAR_SECONDS, description="How long an idle connection stays open."
    )
    drain_seconds: float = Field(
        25.0,
        ge=0,
        le=YEAR_SECONDS,
        description="Time from SIGTERM, SIGINT or SIGHUP to the end of the process. Requests unfinished 3 "
        "seconds before that are given up.",
    )
    drain_notice_ms: int = Field(
        0,
        ge=0,
        le=1000 * YEAR_SECONDS,
        description="The first part of `drain_seconds`: /readyz says 'draining', and requests are still "
        "taken.",
    )
