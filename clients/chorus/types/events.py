"""Events of a streamed generation."""

from __future__ import annotations

from pydantic import Field

from chorus.types.base import ErrorDetail, Wire
from chorus.types.inference import Generation


class TokenEvent(Wire):
    """New text of one choice of one item. All texts of a choice joined are its `text`."""

    index: int
    choice: int = 0
    text: str
    tokens: list[int] = Field(default_factory=list)


class ResultEvent(Wire):
    """Item `index` is finished."""

    index: int
    result: Generation


class ErrorEvent(Wire):
    """Item `index` failed; if it is None, the whole stream failed."""

    index: int | None = None
    error: ErrorDetail


class DoneEvent(Wire):
    """The last event: every item has had its `ResultEvent` or `ErrorEvent`."""

    id: str


StreamEvent = TokenEvent | ResultEvent | ErrorEvent | DoneEvent

EVENT_TYPES: dict[str, type[TokenEvent] | type[ResultEvent] | type[ErrorEvent] | type[DoneEvent]] = {
    "token": TokenEvent,
    "result": ResultEvent,
    "error": ErrorEvent,
    "done": DoneEvent,
}
