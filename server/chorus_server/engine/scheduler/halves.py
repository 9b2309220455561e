"""A score step of a batch in two halves, so that who is interactive waits for one of them at most."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from chorus_server.engine.plans import PrefillPlan, ScorePlan
from chorus_server.engine.scheduler.fair_queue import Waiting
from chorus_server.engine.scheduler.steps import PrefillStep, of_batch
from chorus_server.engine.scheduler.tickets import Ticket

_PATIENCE = 3
"""So many steps may come between the halves: each costs an encoding."""


@dataclass(slots=True)
class Halved:
    """A score step whose inputs are encoded in one step and scored in another. Steps of interactive requests
    may come between; its inputs are then encoded again, because the device keeps only the last.

    Attributes:
        step: the whole step, which is never dispatched.
        loaded: whether its prompt rows are on the device.
        encoded: whether its inputs are what is encoded last.
        set_aside: how many steps came between.
    """

    step: PrefillStep
    loaded: bool = False
    encoded: bool = False
    set_aside: int = 0

    @staticmethod
    def halves(step: PrefillStep) -> bool:
        """Whether a step can be done in two halves, and nobody interactive is in it."""
        return isinstance(step.plan, ScorePlan) and of_batch(step.tickets)

    def is_held(self, held_back: Set[str]) -> bool:
        """Whether its tenant is one of those whose batch has no turn."""
        return self.step.tickets[0].origin.tenant in held_back

    def goes_before(self, head: Waiting[Ticket] | None, held_back: Set[str]) -> bool:
        """Whether it goes on before the queue's head. `held_back` are tenants whose batch has no turn."""
        if self.is_held(held_back):
            return False
        waits = head is not None and head.priority == "interactive"
        return not waits or self.set_aside >= _PATIENCE

    @property
    def waiting(self) -> Waiting[Ticket]:
        """Its first request, as if that were still in the queue."""
        ticket = self.step.tickets[0]
        origin = ticket.origin
        place = (origin.tenant, origin.weight, origin.priority, ticket.fit.cost, ticket.number)
        return Waiting(ticket, ticket.key, *place)

    def set_aside_once(self) -> None:
        """A step came between that encoded something else."""
        self.encoded = False
        self.set_aside += 1

    def next_half(self, number: int, now: float) -> PrefillStep:
        """The step that encodes its inputs, or the one that scores them if that is done."""
        plan = self.step.plan
        assert isinstance(plan, ScorePlan)
        if self.encoded:
            half = replace(plan, step=number, loads=(), encoded=True)
            return replace(self.step, plan=half, planned=now)
        loads = () if self.loaded else plan.loads
        self.loaded = self.encoded = True
        first = PrefillPlan(number, plan.bucket, plan.inputs, (), loads, plan.tokens)
        return replace(self.step, plan=first, planned=now)
