"""Settings under `[limits]`."""

from __future__ import annotations

from pydantic import Field

from chorus_server.settings.values import MIB, YEAR_SECONDS, PairList, SettingsGroup


class LimitSettings(SettingsGroup):
    """What one request may ask for, and how many may wait."""

    max_body_bytes: int = Field(16 * MIB, ge=1024, description="Largest JSON body that the server reads.")
    max_upload_bytes: int = Field(
        64 * MIB,
        ge=1024,
        description="Largest prompt upload that the server reads. All bodies in memory take at most four "
        "times that.",
    )
    max_batch_rows: int = Field(
        1024, ge=1, description="Most inputs in one request; for an ensemble, inputs times members."
    )
    max_labels: int = Field(256, ge=2, description="Most labels of one classification.")
    decision_models: PairList = Field(
        (),
        description="Names that clients of OpenAI's and TypeSafe's routes have fixed, and the pack, the task "
        "or `base` that each means, as in `jev-latest=sentiment,gpt-6-luna=acme/desk@live`.",
    )
    strict_messages: bool = Field(
        False,
        description="Refuse messages of the system, and messages before the last, for which a version's "
        "template has no field, instead of ignoring them with a warning in the answer.",
    )
    default_max_new_tokens: int = Field(
        32, ge=1, description="New tokens if neither the request nor the version sets a number."
    )
    default_deadline_seconds: float | None = Field(
        60.0, gt=0, le=YEAR_SECONDS, description="Deadline of a request that sets none."
    )
    max_deadline_seconds: float = Field(
        600.0, gt=0, le=YEAR_SECONDS, description="Longest deadline that a request may set."
    )
    max_queued_requests: int = Field(
        2048, ge=1, description="How many requests may wait; beyond that the server answers 503."
    )
