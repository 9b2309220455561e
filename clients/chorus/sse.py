"""Server-sent events: bytes in, typed events out (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from chorus.errors import ConnectionLostError, UnexpectedAnswerError
from chorus.limits import check_size
from chorus.types.events import EVENT_TYPES, DoneEvent, StreamEvent


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as it was sent."""

    name: str
    data: str


class RawDecoder:
    """Takes the chunks of a stream as they come, cut anywhere, and returns the events that are complete.

    Args:
        max_event_bytes: limit of one event; None means no limit.
    """

    def __init__(self, max_event_bytes: int | None) -> None:
        self._most = max_event_bytes
        self._buffer = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[RawEvent]:
        """The events that `chunk` completes.

        Raises:
            UnexpectedAnswerError: an event is too long or never ends.
        """
        self._buffer += chunk
        if b"\n" in chunk:  # otherwise wait, so that a long line is searched once, not for every chunk
            *lines, rest = self._buffer.split(b"\n")
            self._buffer = bytearray(rest)
            for line in lines:
                event = self._line(bytes(line.removesuffix(b"\r")))
                if event is not None:
                    yield event
        self._check(len(self._buffer))

    def _check(self, more_bytes: int) -> None:
        check_size(self._held_bytes + more_bytes, self._most, "An event of the stream")

    def _line(self, line: bytes) -> RawEvent | None:
        if not line:
            event = RawEvent(self._name, "\n".join(self._data))
            self._name, self._data, self._held_bytes = "", [], 0
            return event if event.data else None
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", errors="replace")
        if name == b"event":
            self._name = text
        elif name == b"data":
            self._data.append(text)
            self._held_bytes += len(line)
            self._check(0)
        return None  # comments (":") and `retry` mean nothing here; an event's `id` is also in its data


class EventDecoder:
    """The events of a streamed generation. It takes the same argument as `RawDecoder`."""

    def __init__(self, max_event_bytes: int | None) -> None:
        self._raw = RawDecoder(max_event_bytes)
        self.done = False

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The events that `chunk` completes.

        Raises:
            UnexpectedAnswerError: an event does not come from Chorus, or never ends.
        """
        for raw in self._raw.feed(chunk):
            event = self._typed(raw)
            if event is not None:
                self.done = self.done or isinstance(event, DoneEvent)
                yield event

    def finish(self) -> None:
        """The stream ended.

        Raises:
            ConnectionLostError: its `done` event has not come.
        """
        if not self.done:
            raise ConnectionLostError(
                "The stream ended before its last event; some items may have no answer."
            )

    def _typed(self, raw: RawEvent) -> StreamEvent | None:
        kind = EVENT_TYPES.get(raw.name)
        if kind is None:
            return None  # a newer server may send more kinds
        try:
            return kind.model_validate_json(raw.data)
        except ValidationError as error:
            raise UnexpectedAnswerError(f"A {raw.name!r} event of the stream cannot be read.") from error
