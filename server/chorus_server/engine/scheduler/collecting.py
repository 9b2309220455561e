"""Turns decode results back into the tokens, streamed events and finished sequences of requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.plans import Beam, BeamsDone, DecodeResult, SlotTokens
from chorus_server.engine.requests import (
    FailedEvent,
    FinishedEvent,
    ScoredEvent,
    SequenceOutput,
    TokensEvent,
)
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.scheduler.sequences import Detokenise, SequenceBuilder
from chorus_server.engine.scheduler.slots import Block, SlotTable, SlotUse
from chorus_server.engine.scheduler.steps import DecodeStep
from chorus_server.engine.scheduler.tickets import Ticket, TicketPhase
from chorus_server.errors import InvalidInputError

End = Callable[[Ticket, FinishedEvent | ScoredEvent | FailedEvent], None]


class Collector:
    """Builds sequences from decode results. Calls `end` with each request's outcome."""

    def __init__(
        self, eos_id: int, detokenise: Detokenise, slots: SlotTable, metrics: EngineMetrics, end: End
    ) -> None:
        self._eos_id = eos_id
        self._detokenise = detokenise
        self._slots = slots
        self._metrics = metrics
        self._end = end

    def begin(self, ticket: Ticket) -> None:
        """Prepare the sequences of a ticket whose input is encoded."""
        sampling = ticket.generate.sampling
        count = sampling.n if sampling.num_beams == 1 else 0
        ticket.sequences = [self._builder(sampling) for _ in range(count)]

    def decode(self, step: DecodeStep, result: DecodeResult, now: float) -> None:
        """Process one decode result."""
        block = self._slots.blocks[step.plan.block]
        block.in_flight -= 1
        block.released(step.plan.release)
        for slot in result.slots:
            use = step.uses.get(slot.slot)
            if use is not None and not use.over and use.ticket.phase is TicketPhase.DECODING:
                self._take(block, use, slot, now)
        for search in result.beams:
            use = step.uses.get(search.leader)
            if use is not None and not use.over and use.ticket.phase is TicketPhase.DECODING:
                self._take_beams(use.ticket, search, now)

    def _builder(self, sampling: Sampling) -> SequenceBuilder:
        return SequenceBuilder(self._eos_id, sampling.stop, self._detokenise)

    def _take(self, block: Block, use: SlotUse, slot: SlotTokens, now: float) -> None:
        ticket, sequence = use.ticket, use.ticket.sequences[use.place]
        if slot.failed:
            use.over = True
            self._end(ticket, FailedEvent(not_finite()))
            return
        self._note_first(ticket, now)
        kept = sequence.extend(slot.tokens, slot.log_probabilities, slot.done, slot.top)
        if ticket.generate.stream and kept:
            event = TokensEvent(
                use.place, tuple(sequence.tokens[-kept:]), tuple(sequence.log_probabilities[-kept:])
            )
            ticket.handle.push(event)
        if slot.done:
            use.over = True
        if all(other.finish_reason is not None for other in ticket.sequences):
            outputs = tuple(other.output() for other in ticket.sequences)
            self._end(ticket, FinishedEvent(outputs, ticket.fit.length, ticket.timings(now)))
        elif sequence.finish_reason is not None and not use.over:
            block.stop(slot.slot)

    def _take_beams(self, ticket: Ticket, search: BeamsDone, now: float) -> None:
        self._note_first(ticket, now)
        self._slots.leave(ticket, inactive=True)
        if search.failed:
            self._end(ticket, FailedEvent(not_finite()))
            return
        sampling = ticket.generate.sampling
        outputs = tuple(self._beam(sampling, beam) for beam in search.beams[: sampling.n])
        self._end(ticket, FinishedEvent(outputs, ticket.fit.length, ticket.timings(now)))

    def _beam(self, sampling: Sampling, beam: Beam) -> SequenceOutput:
        """A hypothesis, cut after the token that completes a stop string."""
        cut = self._builder(sampling)
        cut.extend(beam.tokens, beam.log_probabilities, False, beam.top)
        reason = cut.finish_reason or ("stop" if beam.ended else "length")
        return replace(cut.output(), score=beam.score, finish_reason=reason)

    def _note_first(self, ticket: Ticket, now: float) -> None:
        if ticket.first_token is None:
            ticket.first_token = now
            self._metrics.first_token_seconds.observe(now - ticket.arrived)


def not_finite() -> InvalidInputError:
    """The error for a request whose numbers overflowed."""
    return InvalidInputError(
        "The model's numbers were not finite for this input: the prompt's values are too large for it.",
        field="task",
        code="output_not_finite",
    )
