"""The server itself: its base model and its state."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from chorus.types.base import Wire


class ModelInfo(Wire):
    """The frozen base model that answers."""

    name: str
    fingerprint: str
    vocabulary_digest: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    parameters: int
    compute_dtype: str
    matrix_dtype: str | None = None
    system_fingerprint: str | None = None
    layout: str | None = None
    max_input_tokens: int
    max_new_tokens: int
    prompt_rows: int | None = None
    version: str | None = None


class Health(Wire):
    """`ok` while the process lives and its engine has not died."""

    status: str


class StoreTrouble(Wire):
    """The server's database is `unreadable`, `unfollowed` or `unwritable`; `message` says what that
    means."""

    status: str
    since_seconds: float
    message: str


class Readiness(Wire):
    """`ready`, `compiling` (with `done` of `total` programs), `draining` or `store_unavailable`. `store` is
    None while the server's database works."""

    status: str
    done: int | None = None
    total: int | None = None
    store: StoreTrouble | None = None

    @property
    def ready(self) -> bool:
        """Whether the server takes requests."""
        return self.status == "ready"
