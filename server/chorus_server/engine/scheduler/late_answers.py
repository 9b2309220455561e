"""Answers of busy tenants wait while a quiet tenant decodes."""

from __future__ import annotations

from collections.abc import Callable

from chorus_server.engine.requests import RequestOutcome
from chorus_server.engine.scheduler.tickets import Ticket

Over = Callable[[Ticket, RequestOutcome | None], None]

_MARGIN = 2
"""The next steps may take so much longer than the last."""


class LateAnswers:
    """Outcomes that are handed over later, after `rounds` decode steps at most.

    Handing over an answer and taking the next request of its caller costs the host as long as a tenth of a
    decode step. On a processor of few cores all that is time that the quiet tenant's next step lacks.

    Args:
        over: reports an outcome.
    """

    def __init__(self, over: Over, rounds: int, clock: Callable[[], float]) -> None:
        self._over = over
        self._rounds = rounds
        self._clock = clock
        self._waiting: list[tuple[Ticket, RequestOutcome]] = []
        self._decoded = 0
        self._step_seconds = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, ticket: Ticket, outcome: RequestOutcome) -> None:
        """Hand an outcome over later; now, if its deadline is near."""
        if self._due(ticket):
            self._over(ticket, outcome)
        else:
            self._waiting.append((ticket, outcome))

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        self._step_seconds = seconds
        self._decoded += bool(self._waiting)

    def hand_over(self, quiet_decodes: bool) -> None:
        """Report what need not wait any longer. Steps that are no decode steps may have come between, so that
        a deadline is near by now."""
        wait = quiet_decodes and self._decoded < self._rounds
        waiting, self._waiting = self._waiting, []
        for ticket, outcome in waiting:
            if wait and not self._due(ticket):
                self._waiting.append((ticket, outcome))
            else:
                self._over(ticket, outcome)
        if not self._waiting:
            self._decoded = 0

    def _due(self, ticket: Ticket) -> bool:
        """Whether a ticket's deadline could pass during as many decode steps."""
        longest = _MARGIN * self._rounds * self._step_seconds
        return ticket.deadline is not None and ticket.deadline <= self._clock() + longest
