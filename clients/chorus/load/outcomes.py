"""What happened to each request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from chorus.errors import ApiError, CallTimeoutError, ChorusError, ConnectionFailedError, ConnectionLostError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    Attributes:
        seconds: from the moment when it was due (open) or sent (closed) until its answer was complete,
            including retries.
        code: None if there was an answer, else why there was none.
        first_token_seconds: only for streams.
        output_tokens: as counted by the server.
    """

    seconds: float
    code: str | None = None
    first_token_seconds: float | None = None
    output_tokens: int = 0


def code_of(error: ChorusError) -> str:
    """A stable word for a failure: the server's code, or what happened on the way."""
    match error:
        case ApiError():
            return error.code
        case ConnectionFailedError():
            return "connection_failed"
        case ConnectionLostError():
            return "connection_lost"
        case CallTimeoutError():
            return "timeout"
        case _:
            return "unexpected_answer"


@dataclass(slots=True)
class Recorder:
    """Collects outcomes while a run goes on. One event loop writes; any thread may read.

    Attributes:
        sent: requests that were begun.
        late: open arrivals that found every connection busy and waited.
        unsent: open arrivals that never got a connection.
        elapsed_seconds: from the start to the last outcome.
    """

    sent: int = 0
    late: int = 0
    unsent: int = 0
    in_flight: int = 0
    elapsed_seconds: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, elapsed_seconds: float) -> None:
        """A request ended."""
        self.outcomes.append(outcome)
        self.elapsed_seconds = max(self.elapsed_seconds, elapsed_seconds)
        if outcome.code is not None:
            self.errors[outcome.code] += 1
