"""A step plan together with what the scheduler must remember until its result is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from chorus_server.engine.plans import DecodePlan, PrefillPlan, ScorePlan
from chorus_server.engine.requests import InputPart, PromptHandle
from chorus_server.engine.scheduler.prompt_rows import Acquired, PromptRows
from chorus_server.engine.scheduler.slots import SlotUse
from chorus_server.engine.scheduler.tickets import Ticket


@dataclass(eq=False, slots=True)
class PrefillStep:
    """A prefill step: prefill or score.

    Attributes:
        tickets: one for each row.
        acquired: prompt rows of each ticket.
        planned: when it was planned, on the engine's clock.
    """

    plan: PrefillPlan | ScorePlan
    tickets: tuple[Ticket, ...]
    acquired: tuple[Acquired, ...]
    planned: float

    @property
    def only_encodes(self) -> bool:
        """Whether it is the first half of a score step."""
        return isinstance(self.plan, PrefillPlan) and not self.plan.admissions


@dataclass(eq=False, slots=True)
class DecodeStep:
    """A decode dispatch.

    Attributes:
        uses: who was in each slot when it was dispatched, because a slot may have a new owner when the result
            is read.
    """

    plan: DecodePlan
    uses: dict[int, SlotUse] = field(default_factory=dict)
    planned: float = 0.0


Step = PrefillStep | DecodeStep


def of_batch(tickets: Iterable[Ticket]) -> bool:
    """Whether all these requests are of a batch."""
    return all(ticket.origin.priority == "batch" for ticket in tickets)


def input_ids(parts: tuple[InputPart, ...], rows: PromptRows, vocab_size: int) -> tuple[int, ...]:
    """A request's input as the model reads it: prompt row r is id `vocab_size + r`."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, PromptHandle):
            ids.extend(vocab_size + row for row in rows.rows_of(part.digest))
        else:
            ids.extend(part)
    return tuple(ids)
