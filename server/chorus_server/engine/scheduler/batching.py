"""Fills the next prefill step with the head of the fair queue and the requests behind it that fit the same
shape."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from itertools import islice

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.plans import Admission, PrefillPlan, ScorePlan
from chorus_server.engine.requests import ScoreRequest
from chorus_server.engine.scheduler.buckets import BucketChooser
from chorus_server.engine.scheduler.fair_queue import FairQueue, Waiting
from chorus_server.engine.scheduler.prompt_rows import Acquired, PromptRows
from chorus_server.engine.scheduler.slots import SlotTable
from chorus_server.engine.scheduler.step_times import StepShape, StepTimes, shape_of
from chorus_server.engine.scheduler.steps import PrefillStep, input_ids
from chorus_server.engine.scheduler.tickets import Ticket

MayJoin = Callable[[Waiting[Ticket], str], bool]
"""Called with (head, tenant). Returns whether requests of the tenant may be encoded in the head's step."""


@dataclass(slots=True)
class Gathered:
    """What a scan of the queue, in fair order, found.

    Attributes:
        turn: start tag of the head.
        head: the first of `tickets`, as it waits.
        passed: for each tenant, the start tag of its first ticket that could run now but not in this step.
        held_back: for each tenant whose batch let others go first, the start tag of its first request.
        joining: for each tenant that was asked about, whether its requests may join the head's step.
        tickets: the head first; all fit one bucket length.
        unloaded: tickets whose prompts were evicted from every tier after they were loaded.
        late: tickets that can no longer be answered in time.
        full: whether the largest batch is full.
    """

    turn: float = 0.0
    head: Waiting[Ticket] | None = None
    passed: dict[str, float] = field(default_factory=dict)
    held_back: dict[str, float] = field(default_factory=dict)
    joining: dict[str, bool] = field(default_factory=dict)
    tickets: list[Ticket] = field(default_factory=list)
    unloaded: list[Ticket] = field(default_factory=list)
    late: list[Ticket] = field(default_factory=list)
    full: bool = False


class Batcher:
    """Chooses the rows of prefill steps and gives them places.

    Prompt rows are given out strictly in fair order. If the head's prompts do not fit beside those that steps
    in flight read, nothing is planned until these steps are collected. Slots are held much longer, so a
    ticket that finds no slot is skipped; `SlotTable` keeps it from starving.
    """

    def __init__(
        self,
        config: EngineConfig,
        queue: FairQueue[Ticket],
        rows: PromptRows,
        slots: SlotTable,
        host: HostPromptTier,
        buckets: BucketChooser,
        vocab_size: int,
    ) -> None:
        self._config = config
        self._queue = queue
        self._rows = rows
        self._slots = slots
        self._host = host
        self._buckets = buckets
        self._vocab_size = vocab_size

    def head(self, held_back: Set[str]) -> Waiting[Ticket] | None:
        """The request whose turn it is, without batches of the tenants that are held back."""
        scan = islice(self._queue.in_order(), self._config.lookahead_requests)
        return next((each for each in scan if not _is_held(each, held_back)), None)

    def gather(
        self,
        is_late: Callable[[Ticket], bool],
        held_back: Set[str] = frozenset(),
        may_join: MayJoin = lambda head, tenant: True,
    ) -> Gathered:
        """Scan the queue in fair order. Changes nothing but the reservations of blocks.

        Args:
            held_back: tenants whose batches begin no step, but may join one.
            may_join: whose requests may join a step, where they fit; asked once of each tenant.
        """
        found = Gathered()
        self._slots.begin_pass()
        for waiting in islice(self._queue.in_order(), self._config.lookahead_requests):
            ticket = waiting.item
            # Of hundreds that wait, most are like one that found no place or may not join.
            if not found.joining.get(waiting.tenant, True) or self._slots.refused(ticket):
                continue
            if self._too_far_ahead(found, waiting):
                continue
            if is_late(ticket):
                found.late.append(ticket)
            elif not self._present(ticket):
                found.unloaded.append(ticket)
            elif not found.tickets and _is_held(waiting, held_back):
                found.held_back.setdefault(waiting.tenant, waiting.start)
            elif self._has_slots(ticket):
                self._consider(found, waiting, may_join)
                if found.full:
                    break
        return found

    def place(
        self,
        found: Gathered,
        step: int,
        now: float,
        times: StepTimes | None = None,
        *,
        short: bool = False,
    ) -> PrefillStep | None:
        """Give rows and slots to as many of the gathered tickets as possible, and take these from the queue.

        Args:
            times: of steps, if no batch may make this one long.
            short: whether the step has the shortest token axis of its length.
        """
        L = found.tickets[0].fit.input_class
        tickets = found.tickets if times is None else self._short(found.tickets, L, times)
        seated = self._seated(tickets, L, short)
        placed: list[tuple[Ticket, Acquired]] = []
        for ticket in seated:
            # An earlier ticket may have taken the rows of this one's prompt; the next step loads them again.
            acquired = self._rows.acquire(ticket.fit.prompts) if self._present(ticket) else None
            if acquired is None:
                break
            placed.append((ticket, acquired))
        for ticket in seated[len(placed) :]:
            self._slots.leave(ticket, inactive=True)
        if not placed:
            return None
        for ticket, _ in placed:
            self._queue.take(ticket.key, turn=found.turn)
        for tenant in found.held_back.keys() - {found.tickets[0].origin.tenant}:
            self._queue.forgo(tenant)
        # Some may have found no prompt rows, so the smallest axis for those that did may be a smaller one.
        lengths, fixed = [ticket.fit.length for ticket, _ in placed], self._is_fixed(found.tickets[0])
        T, B = self._buckets.axis(lengths, L, fixed=fixed)
        return self._step(step, (B, L), T, placed, now)

    def _short(self, tickets: list[Ticket], length: int, times: StepTimes) -> list[Ticket]:
        """These tickets without those of a batch that would make the step too long for interactive requests:
        for those in it, or for those that come meanwhile. The head stays."""
        asked = [ticket for ticket in tickets if ticket.origin.priority == "interactive"]
        needed = {tickets[0], *asked}
        others = [ticket for ticket in tickets if ticket not in needed]
        base, bearable = self._shape(list(needed), length), 0.0 if asked else times.bearable
        if bearable is None:
            return tickets
        for count in range(len(others), 0, -1):
            kept = needed.union(others[:count])
            if times.short(self._shape(list(kept), length), base, bearable):
                return [ticket for ticket in tickets if ticket in kept]
        return [ticket for ticket in tickets if ticket in needed]

    def _shape(self, tickets: list[Ticket], length: int) -> StepShape:
        lengths, fixed = [ticket.fit.length for ticket in tickets], self._is_fixed(tickets[0])
        T, B = self._buckets.axis(lengths, length, fixed=fixed)
        return shape_of(tickets, (B, length), T)

    def most_rows(self, length: int) -> int:
        """The most rows of a prefill step of L = `length`."""
        return self._buckets.most_rows(length)

    def _seated(self, tickets: list[Ticket], length: int, short: bool) -> list[Ticket]:
        """The tickets of this step, each with its slots.

        The batch size is chosen after the slots are given out: each ticket alone was sure of a place, but two
        may have counted on the same one.
        """
        seated = [t for t in tickets if t.kind == "score" or self._slots.place(t)]
        lengths = [ticket.fit.length for ticket in seated]
        fixed = self._is_fixed(tickets[0])
        rows = self._buckets.choose(lengths, length, fixed=fixed, short=short) if seated else 0
        for ticket in seated[rows:]:
            self._slots.leave(ticket, inactive=True)
        return seated[:rows]

    def _consider(self, found: Gathered, waiting: Waiting[Ticket], may_join: MayJoin) -> None:
        if found.head is None:
            found.turn = found.held_back.get(waiting.tenant, waiting.start)
            found.head = waiting
        else:
            if waiting.tenant not in found.joining:
                found.joining[waiting.tenant] = may_join(found.head, waiting.tenant)
            if not (found.joining[waiting.tenant] and self._joins(found, waiting.item)):
                found.passed.setdefault(waiting.tenant, waiting.start)
                return
        found.tickets.append(waiting.item)
        most = self._buckets.most_rows(found.tickets[0].fit.input_class)
        found.full = len(found.tickets) == most

    def _too_far_ahead(self, found: Gathered, waiting: Waiting[Ticket]) -> bool:
        """A skipped tenant may fall behind the others by its largest request and no more.

        Within a tenant the order may bend further, up to the lookahead, because its oldest request is the
        next head.
        """
        others = [start for tenant, start in found.passed.items() if tenant != waiting.tenant]
        return bool(others) and waiting.start - min(others) > self._queue.largest

    def _joins(self, found: Gathered, ticket: Ticket) -> bool:
        head, fit = found.tickets[0], ticket.fit
        L = head.fit.input_class
        return (
            ticket.kind == head.kind
            and self._one_shape(ticket) == self._one_shape(head)
            and sum(each.fit.nodes for each in found.tickets) + fit.nodes <= self._config.prefill_token_budget
            and (fit.shape is None or fit.shape.input_length >= L)
            and self._buckets.joins(fit.length, fit.input_class, L)
        )

    def _one_shape(self, ticket: Ticket) -> tuple[int, ...]:
        """The one shape that the request may be answered in; empty if that may be any."""
        if not self._is_fixed(ticket):
            return ()
        fit = ticket.fit
        return (*self._buckets.fixed_axis(fit.length, fit.input_class), fit.input_class)

    def _is_fixed(self, ticket: Ticket) -> bool:
        """Whether the request is answered in one shape, whatever else is in it."""
        request = ticket.request
        return self._config.batch_invariant or (isinstance(request, ScoreRequest) and request.fixed_shape)

    def _has_slots(self, ticket: Ticket) -> bool:
        return ticket.kind == "score" or self._slots.has_place(ticket)

    def _present(self, ticket: Ticket) -> bool:
        held = ticket.holds
        return all(p.digest in self._rows or p.digest in held for p in ticket.fit.prompts)

    def _step(
        self,
        step: int,
        bucket: tuple[int, int],
        tokens: int,
        placed: list[tuple[Ticket, Acquired]],
        now: float,
    ) -> PrefillStep:
        tickets = tuple(ticket for ticket, _ in placed)
        acquired = tuple(rows for _, rows in placed)
        loads = tuple(load for rows in acquired for load in rows.loads)
        inputs = tuple(input_ids(ticket.request.input, self._rows, self._vocab_size) for ticket in tickets)
        head = tickets[0]
        if head.kind == "score":
            targets = tuple(t.request.targets for t in tickets if isinstance(t.request, ScoreRequest))
            score = ScorePlan(step, bucket, inputs, targets, loads, tokens)
            return PrefillStep(score, tickets, acquired, now)
        admissions = tuple(
            Admission(row, ticket.block, ticket.slots, ticket.generate.sampling.on_device())
            for row, ticket in enumerate(tickets)
            if ticket.block is not None
        )
        return PrefillStep(
            PrefillPlan(step, bucket, inputs, admissions, loads, tokens), tickets, acquired, now
        )


def _is_held(waiting: Waiting[Ticket], tenants: Set[str]) -> bool:
    return waiting.priority == "batch" and waiting.tenant in tenants
