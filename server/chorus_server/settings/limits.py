"""Settings under `[limits]`."""

from __future__ import annotations

from pydantic import Field

from chorus_server.settings.values import MIB, YEAR_SECONDS, PairList, SettingsGroup

_LEAST_DEADLINE_SECONDS = 60.0  # of a request that sets none, where the longest allows for it


class LimitSettings(SettingsGroup):
    """What one request may ask for, and how many may wait."""

    max_body_bytes: int = Field(16 * MIB, ge=1024, description="Largest JSON body that the server reads.")
    max_upload_bytes: int = Field(
        64 * MIB,
        ge=1024,
        description="Largest prompt upload that the server reads. All bodies in memory take at most four "
        "times that.",
    )
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
    max_deadline_seconds: float = Field(
        600.0,
        gt=0,
        le=YEAR_SECONDS,
        description="Longest deadline that a request may set. One that sets none gets a tenth of it, but at "
        "least a minute.",
    )
    max_queued_requests: int = Field(
        2048, ge=1, description="How many requests may wait; beyond that the server answers 503."
    )

    @property
    def default_deadline_seconds(self) -> float:
        """Deadline of a request that sets none."""
        return min(self.max_deadline_seconds, max(_LEAST_DEADLINE_SECONDS, self.max_deadline_seconds / 10))
