"""One accepted request on its way through the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.requests import GenerateRequest, Origin, Request, RequestKind, ScoreRequest, Timings
from chorus_server.engine.scheduler.fitting import Fit
from chorus_server.engine.scheduler.sequences import SequenceBuilder

_DECODED = 8.0
"""How many tokens are encoded in the time of one decoded token: 3 to 25, depending on model and device."""


class TicketPhase(Enum):
    """The phases of a ticket. Every ticket ends in `OVER`."""

    ARRIVED = "arrived"
    LOADING = "loading"
    QUEUED = "queued"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    OVER = "over"


@dataclass(eq=False, slots=True)
class Ticket:
    """An accepted request and everything it holds.

    Attributes:
        number: order of arrival.
        arrived, deadline: on the engine's clock; a deadline of None is never reached.
        phase: only the scheduler advances it.
        holds: prompts that are kept in the host tier for it.
        awaiting: prompts that are being fetched for it.
        block, slots: its place on the device, leader first; set when its prefill step is planned.
        sequences: one builder for each sequence, filled from decode results.
        queued, dispatched, encoded, first_token: times on the engine's clock.
    """

    request: Request
    fit: Fit
    handle: RequestHandle
    number: int
    arrived: float
    deadline: float | None
    phase: TicketPhase = TicketPhase.ARRIVED
    holds: list[str] = field(default_factory=list)
    awaiting: set[str] = field(default_factory=set)
    block: int | None = None
    slots: tuple[int, ...] = ()
    sequences: list[SequenceBuilder] = field(default_factory=list)
    queued: float = 0.0
    dispatched: float | None = None
    encoded: float | None = None
    first_token: float | None = None

    @property
    def origin(self) -> Origin:
        return self.request.origin

    @property
    def key(self) -> str:
        return self.request.origin.request_id

    @property
    def kind(self) -> RequestKind:
        return "score" if isinstance(self.request, ScoreRequest) else "generate"

    @property
    def generate(self) -> GenerateRequest:
        """The request of a generate ticket."""
        if not isinstance(self.request, GenerateRequest):
            raise TypeError(f"{self.key} is a score request")
        return self.request

    @property
    def steps(self) -> int:
        """How many steps it may take: its prefill step and its decode steps."""
        request = self.request
        return 1 if isinstance(request, ScoreRequest) else 1 + request.sampling.max_new_tokens

    @property
    def work(self) -> float:
        """The work that it asks of the device, in padded input tokens, for estimates of time. A decode step
        reads the whole model for a few tokens, so each of them costs as much as several of the encoder's."""
        return self.fit.cost + (_DECODED - 1) * (self.steps - 1) * self.fit.slots

    @property
    def settled(self) -> bool:
        """Whether its outcome is decided, perhaps on another thread because of a cancellation or deadline."""
        return self.handle.outcome is not None

    def timings(self, now: float) -> Timings:
        """Where the time went until `now`; phases that never began are 0."""
        dispatched = now if self.dispatched is None else self.dispatched
        encoded = now if self.encoded is None else self.encoded
        first = None if self.first_token is None else self.first_token - self.arrived
        return Timings(dispatched - self.arrived, encoded - dispatched, now - encoded, first)
