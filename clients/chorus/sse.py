"""Server-sent events, bytes in and typed events out (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from chorus.errors import ConnectionLostError, UnexpectedAnswerError
from chorus.types.events import EVENT_TYPES, DoneEvent, StreamEvent

MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventDecoder:
    """Fed chunks of a stream as they come, cut anywhere; hands out the events that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._held_bytes = 0
        self.done = False

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The events that `chunk` completes.

        Raises:
            UnexpectedAnswerError: an event that is not Chorus's, or one without end.
        """
        self._buffer += chunk
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            event = self._line(bytes(line.removesuffix(b"\r")))
            if event is not None:
                yield event
        if self._held_bytes + len(self._buffer) > MAX_EVENT_BYTES:
            raise UnexpectedAnswerError(f"An event of the stream is over {MAX_EVENT_BYTES} bytes.")

    def finish(self) -> None:
        """The stream ended.

        Raises:
            ConnectionLostError: before its `done` event.
        """
        if not self.done:
            raise ConnectionLostError(
                "The stream ended before its last event; some items may have no answer."
            )

    def _line(self, line: bytes) -> StreamEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", errors="replace")
        if name == b"event":
            self._name = text
        elif name == b"data":
            self._data.append(text)
            self._held_bytes += len(line)
        return None  # comments (":"), `id` and `retry` carry nothing for us

    def _dispatch(self) -> StreamEvent | None:
        name, data = self._name, "\n".join(self._data)
        self._name, self._data, self._held_bytes = "", [], 0
        kind = EVENT_TYPES.get(name)
        if kind is None or not data:
            return None  # a newer server may send more kinds
        try:
            event = kind.model_validate_json(data)
        except ValidationError as error:
            raise UnexpectedAnswerError(f"A {name!r} event of the stream cannot be read.") from error
        self.done = self.done or isinstance(event, DoneEvent)
        return event
