"""Every request has exactly one outcome. The first one decided is written to the journal, counted and given
to the caller."""

from __future__ import annotations

from collections.abc import Callable

from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.requests import FailedEvent, FinishedEvent, RequestOutcome
from chorus_server.engine.scheduler.admission import AdmissionControl
from chorus_server.engine.scheduler.deadlines import Deadlines
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.engine.work import Settled, settled


class Outcomes:
    """Settles outcomes. May be called from any thread.

    Args:
        on_settled: told what each request came to, before its caller is; it must be quick and never raise.
    """

    def __init__(
        self,
        journal: Journal,
        metrics: EngineMetrics,
        admission: AdmissionControl,
        deadlines: Deadlines,
        clock: Callable[[], float],
        on_settled: Callable[[Settled], None] | None = None,
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._admission = admission
        self._deadlines = deadlines
        self._clock = clock
        self._on_settled = on_settled

    def over(self, ticket: Ticket, outcome: RequestOutcome | None) -> None:
        """Return the permit of a ticket that holds nothing else; then settle its outcome, unless it has
        one."""
        answered = outcome is not None and not isinstance(outcome, FailedEvent)
        if answered and ticket.dispatched is not None:
            self._admission.served(ticket, self._clock() - ticket.dispatched)
        self._admission.release(ticket)
        if outcome is None:
            return
        self.decide(ticket, outcome)

    def decide(self, ticket: Ticket, outcome: RequestOutcome) -> bool:
        """Settle the outcome. Returns False if the request already has one."""
        return ticket.handle.settle(outcome, lambda: self._record(ticket, outcome))

    def _record(self, ticket: Ticket, outcome: RequestOutcome) -> None:
        self._deadlines.remove(ticket)
        code = outcome.error.code if isinstance(outcome, FailedEvent) else "ok"
        self._journal.outcome(ticket.key, code)
        sequences = outcome.sequences if isinstance(outcome, FinishedEvent) else ()
        tokens = sum(len(sequence.tokens) for sequence in sequences)
        timings = ticket.timings(self._clock())
        ran = None if ticket.dispatched is None else timings
        self._metrics.request_done(ticket.origin, ticket.kind, code, ran, ticket.fit.length, tokens)
        if self._on_settled is not None:
            produced = None if ticket.dispatched is None else ticket.sequences
            self._on_settled(settled(ticket.request, outcome, produced, timings))
