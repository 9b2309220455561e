"""Every setting of the server, once: the table behind the flags, the environment and docs/settings.md.

A value comes from, first match wins: a flag of `chorus serve`, an environment variable (`CHORUS_` and the
name in capitals), a TOML file (`--config` or `CHORUS_CONFIG`), the default. Units are in the names. An
unknown name in the file is an error, never ignored.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.errors import InvalidInputError
from server.values import YEAR_SECONDS, NumberList, PathList, PlainValues, ShapeList, UrlList

ENV_PREFIX = "CHORUS_"
CONFIG_VARIABLE = "CHORUS_CONFIG"

_MIB = 1 << 20


class Settings(PlainValues, BaseSettings):
    """Frozen configuration of one server process.

    Build it with `load_settings`, which gives readable errors.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, protected_namespaces=(),
        allow_inf_nan=False,
    )  # fmt: skip

    _file: ClassVar[Path | None] = None

    # Model
    model: str = Field(
        "embedded",
        description="Base model: a folder, a Hugging Face hub id, a `gs://` T5X folder, or `embedded`, the "
        "small one that ships with Chorus.",
    )
    demo_prompts: bool = Field(
        True,
        description="With the embedded base: register its prompts under the server's tenant, each task once.",
    )
    compute_dtype: Literal["auto", "f32", "bf16"] = Field(
        "auto", description="Type the model computes in. `auto` is f32 on a CPU and bf16 on an accelerator."
    )
    matrix_dtype: Literal["auto", "bf16"] = Field(
        "auto",
        description="Type that the model's matrices are kept and multiplied in. `auto` is the compute type; "
        "`bf16` beside f32 halves their memory and, on a CPU with bf16 instructions, makes answers a third "
        "faster: docs/models.md has what it changes.",
    )
    layout: Literal["unrolled", "scanned"] = Field(
        "unrolled", description="Weights in one buffer a layer (fast decode) or stacked (fast compile)."
    )
    attention: Literal["auto", "xla", "cudnn"] = Field(
        "auto",
        description="Attention of whole sequences. `auto` is cuDNN on an NVIDIA card in bf16, XLA by "
        "pairs of rows on one CPU, else XLA.",
    )
    model_devices: int = Field(
        1, ge=1, description="Devices that share each tensor: heads, feed-forward and vocabulary are cut."
    )
    data_devices: int = Field(
        1,
        ge=1,
        description="Groups of `model_devices` devices that share batch rows and slots; weights repeat.",
    )

    # HTTP
    http_host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Anything but loopback needs a key or `--insecure-bind`.",
    )
    http_port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one.")
    insecure_bind: bool = Field(
        False,
        description="Allow an address that others reach without any key: everybody there, and every web page "
        "that they open, owns the server.",
    )
    api_key_file: Path | None = Field(
        None, description="File with the bearer key that every route then needs (16 characters or more)."
    )
    scrape_token_file: Path | None = Field(
        None, description="File with the bearer token that reads `/metrics` and nothing else."
    )
    tenant: str = Field(
        "default", description="Tenant of the one key, and of everybody when there is no key."
    )
    max_body_bytes: int = Field(16 * _MIB, ge=1024, description="Largest JSON body that is read.")
    max_upload_bytes: int = Field(
        64 * _MIB,
        ge=1024,
        description="Largest prompt upload that is read; all bodies in memory are at most four times that.",
    )
    max_text_characters: int = Field(1_000_000, ge=1, description="Longest input text, before tokenising.")
    max_batch_rows: int = Field(
        1024, ge=1, description="Most inputs in one request; an ensemble counts inputs times members."
    )
    max_labels: int = Field(256, ge=2, description="Most labels of one classification.")
    max_members: int = Field(64, ge=1, description="Most members of one ensemble.")
    keep_alive_seconds: int = Field(
        75, ge=1, le=YEAR_SECONDS, description="How long an idle connection stays open."
    )
    drain_seconds: float = Field(
        25.0,
        ge=0,
        le=YEAR_SECONDS,
        description="On SIGTERM, SIGINT or SIGHUP: time until the process ends; what is unfinished 3 seconds "
        "before is given up.",
    )
    drain_notice_ms: int = Field(
        0,
        ge=0,
        le=1000 * YEAR_SECONDS,
        description="Of `drain_seconds`: how long to say 'draining' at /readyz and still take requests.",
    )

    # Requests
    default_max_new_tokens: int = Field(
        32, ge=1, description="New tokens when neither the request nor the version says."
    )
    default_deadline_seconds: float | None = Field(
        60.0, gt=0, le=YEAR_SECONDS, description="Deadline of a request that sets none."
    )
    max_deadline_seconds: float = Field(
        600.0, gt=0, le=YEAR_SECONDS, description="Longest deadline that a request may set."
    )
    text_threads: int = Field(
        2, ge=1, le=64, description="Threads that tokenise long texts and compute neighbours."
    )
    long_text_characters: int = Field(
        20_000, ge=1, description="Requests with more text than this are tokenised off the event loop."
    )

    # Prompts
    data_dir: Path = Field(
        Path(".chorus"), description="Folder of the embedded database, blobs and compile cache."
    )
    database_url: str | None = Field(
        None,
        description="Database in place of the embedded one: postgresql://USER:PASSWORD@HOST/NAME, or "
        "sqlite:///FILE.",
    )
    store_threads: int = Field(
        4, ge=1, le=64, description="Threads that read the prompt store; as many others change it."
    )
    collect_interval_seconds: float = Field(
        3600.0,
        ge=0,
        le=YEAR_SECONDS,
        description="How often blobs that no version needs are removed; 0 never removes any.",
    )
    collect_grace_seconds: float = Field(
        3600.0,
        ge=0,
        le=YEAR_SECONDS,
        description="How long a blob must have been unneeded; longer than a deleted version is read.",
    )
    alias_staleness_ms: int = Field(
        500,
        ge=0,
        le=60_000,
        description="How long this process may go on using an alias that has moved; 30 s while the database "
        "does not answer.",
    )

    # Tuning
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
    tuning_lease_seconds: float = Field(
        30.0,
        ge=1,
        le=YEAR_SECONDS,
        description="After this silence of a process another goes on with its job.",
    )
    tuning_keep_days: float = Field(
        14.0,
        ge=0,
        le=36_500,
        description="How long a failed or cancelled job keeps its checkpoint, to be resumed from.",
    )
    tuning_max_row_bytes: int = Field(_MIB, ge=1, description="Longest row of a file of training data.")
    tuning_data_paths: PathList = Field(
        (), description="Folders and files on this machine that jobs of any tenant may read."
    )
    tuning_data_urls: UrlList = Field(
        (), description="Beginnings of URLs that jobs of any tenant may fetch, as in `https://host/folder/`."
    )
    tuning_max_file_bytes: int = Field(
        1024 * _MIB, ge=1, description="Largest file of training data that is taken."
    )
    tuning_max_unfinished_jobs: int = Field(
        16, ge=1, description="Unfinished tuning jobs of one tenant before it gets 429."
    )
    tuning_max_followers: int = Field(
        256, ge=1, description="Connections that follow tuning jobs at once before the server answers 503."
    )
    tuning_max_followers_per_tenant: int = Field(
        32, ge=1, description="Connections of one tenant that follow tuning jobs before it gets 429."
    )

    # Engine
    prompt_rows: int = Field(8192, ge=1, description="Rows of the device-resident prompt table.")
    host_prompts_bytes: int = Field(
        512 * _MIB, ge=0, description="Prompt values kept in host memory, in bytes."
    )
    max_prompt_rows: int = Field(512, ge=1, description="Longest prompt, in rows, that may be uploaded.")
    max_queued_requests: int = Field(
        2048, ge=1, description="Requests waiting before the server answers 503."
    )
    max_queued_per_tenant: int | None = Field(
        None, ge=1, description="Requests of one tenant waiting before it gets 429; unset, no such bound."
    )
    prefill_token_budget: int = Field(
        4096,
        ge=1,
        description="Tokens encoded between two decode rounds, with padding; one smallest batch always runs.",
    )
    decode_tokens_per_dispatch: int = Field(
        4,
        ge=1,
        description="Tokens decoded for each sequence before the host looks again: more is faster, later.",
    )
    protect_decode_rounds: int = Field(
        4,
        ge=1,
        description="Decode rounds after a busy tenant's full encoder pass while a quiet one decodes.",
    )
    reserved_slots: int = Field(
        1,
        ge=0,
        description="Free decode slots a block shape keeps for tenants below their share, when several ask.",
    )
    loader_threads: int = Field(2, ge=1, le=64, description="Prompts fetched from the store at once.")
    step_timeout_seconds: float = Field(
        120.0,
        ge=0,
        le=YEAR_SECONDS,
        description="A device step that takes longer ends the process; 0 never gives up.",
    )
    max_programs: int = Field(
        128, ge=1, description="Most programs that a start may compile; lengths, batches and blocks multiply."
    )
    max_compile_seconds: float = Field(
        3600.0, ge=0, le=YEAR_SECONDS, description="A start that compiles for longer gives up; 0 never does."
    )
    compile_cache_dir: Path | None = Field(
        None,
        description="Folder of compiled programs, kept for later starts; unset, `compile_cache` in the data "
        "folder.",
    )
    input_lengths: NumberList = Field(
        (64, 128, 160, 192, 256, 320, 384, 512),
        description="Compiled input lengths in tokens (prompt, text and `</s>`); the largest is the limit.",
    )
    batch_rows: NumberList = Field(
        (1, 8), description="Batch sizes of the encoder that are compiled at each length."
    )
    blocks: ShapeList = Field(
        ((128, 64, 16), (256, 64, 16), (512, 256, 8)),
        description="Decode blocks as INPUTxNEWxSLOTS: input tokens, new tokens and sequences that fit one.",
    )
    score_buckets: ShapeList = Field(
        ((8, 8),),
        description="Label ranking as LABELSxTOKENS of one dispatch; more labels take more dispatches.",
    )
    batch_invariant: bool = Field(
        False,
        description="One compiled shape an input length, so that load cannot change an answer's rounding.",
    )
    memory_limit_bytes: int | None = Field(
        None, ge=1, description="Device memory that may be used; nine tenths of the device's when unset."
    )
    journal_file: Path | None = Field(
        None, description="Append-only admission journal: one line for each accepted request."
    )

    # Metrics and logs
    metrics_tenant_series: int = Field(
        50, ge=0, description="Tenants with metric series of their own; later ones are counted as `other`."
    )
    metrics_task_series: int = Field(
        200, ge=0, description="Tasks with metric series of their own; later ones are counted as `other`."
    )
    access_log: bool = Field(
        True,
        description="Write one line for each request, without its content; for health and scrapes at debug.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log level."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if cls._file is None:
            return (init_settings, env_settings)
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls._file))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listening address."""
        return is_loopback(self.http_host)


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    flags: Mapping[str, Any] | None = None, config: Path | None = None, *, listening: bool = True
) -> Settings:
    """Settings from flags, environment and file.

    Args:
        flags: values by setting name; those that are None were not given.
        config: TOML file; `CHORUS_CONFIG` names it otherwise.
        listening: whether the process will listen on an address; else the bind rule does not hold.

    Raises:
        InvalidInputError: a value is out of range, a name unknown or the file unreadable; names the setting.
    """
    path = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if path is not None and not os.path.isfile(path):  # noqa: PTH113 - answers whatever the name is
        raise InvalidInputError(f"The settings file {path} does not exist.", field="config")
    source = type("FileSettings", (Settings,), {"_file": path, "__module__": __name__}) if path else Settings
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        loaded = source(**given)
    except ValidationError as error:
        raise _readable(error) from None
    except (ValueError, RecursionError, OSError) as error:  # a file that is not TOML, or cannot be read
        raise InvalidInputError(f"The settings file {path} cannot be read: {error}", field="config") from None
    return check_settings(loaded) if listening else loaded


def check_settings(settings: Settings) -> Settings:
    """Rules between settings: the bind rule and the drain's. Raises InvalidInputError naming the setting."""
    if settings.api_key_file is None and not settings.is_loopback and not settings.insecure_bind:
        raise InvalidInputError(
            f"Refusing to listen on {settings.http_host} without a key: anybody who reaches it could use "
            "and delete every prompt. Set --api-key-file, listen on 127.0.0.1, or accept the risk with "
            "--insecure-bind.",
            field="http_host",
        )
    if settings.drain_notice_ms and settings.drain_notice_ms >= 1000 * settings.drain_seconds:
        raise InvalidInputError(
            f"drain_notice_ms is {settings.drain_notice_ms}, and drain_seconds, which it is a part of, is "
            f"{settings.drain_seconds:g}: give a shorter notice or more time.",
            field="drain_notice_ms",
        )
    return settings


def _readable(error: ValidationError) -> InvalidInputError:
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in item["loc"]) or "settings"
        if item["type"] == "missing":
            problems.append(f"pass --{_flag(name)} or set {ENV_PREFIX}{name.upper()}: it is required")
        elif item["type"] == "extra_forbidden":
            problems.append(f"{name} is not a setting; see `chorus serve --help`")
        else:
            message, got = item["msg"].removeprefix("Value error, "), str(item["input"])
            shown = "" if "@" in got else f", got {got[:80]!r}"  # a URL may hold a password
            problems.append(f"{name}: {message[0].lower()}{message[1:]}{shown}")
    first = error.errors(include_url=False, include_context=False)[0]["loc"]
    return InvalidInputError("; ".join(problems) + ".", field=str(first[0]) if first else None)


def _flag(name: str) -> str:
    return {"http_host": "host", "http_port": "port"}.get(name, name.replace("_", "-"))


def flag_of(name: str) -> str:
    """The command-line flag of a setting, with dashes."""
    return "--" + _flag(name)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()
