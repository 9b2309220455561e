"""The scheduler: takes tickets, plans steps and reads their results. It has no thread, device or clock of its
own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.plans import (
    DecodePlan,
    DecodeResult,
    Ladder,
    PrefillResult,
    ScorePlan,
    ScoreResult,
    StepResult,
)
from chorus_server.engine.requests import FailedEvent, PromptHandle, RequestOutcome, ScoredEvent
from chorus_server.engine.scheduler.batching import Batcher, Gathered
from chorus_server.engine.scheduler.buckets import BucketChooser
from chorus_server.engine.scheduler.collecting import Collector, not_finite
from chorus_server.engine.scheduler.fair_queue import FairQueue, Waiting
from chorus_server.engine.scheduler.halves import Halved
from chorus_server.engine.scheduler.late_answers import LateAnswers
from chorus_server.engine.scheduler.loading import Fetch, Loading, drop_holds
from chorus_server.engine.scheduler.prefill_decode_policy import PrefillDecodePolicy
from chorus_server.engine.scheduler.prompt_rows import PromptRows
from chorus_server.engine.scheduler.sequences import Detokenise
from chorus_server.engine.scheduler.shares import Shares
from chorus_server.engine.scheduler.slots import Block, SlotTable
from chorus_server.engine.scheduler.step_times import StepTimes
from chorus_server.engine.scheduler.steps import DecodeStep, PrefillStep, Step, of_batch
from chorus_server.engine.scheduler.tickets import Ticket, TicketPhase
from chorus_server.engine.stats import LISTED_TASKS, EngineStats, PrefillSummary
from chorus_server.errors import ChorusError, DeadlineExceededError, InternalError, InvalidInputError

_MOMENT_SECONDS = 1.0
"""So long after an interactive request another is reckoned with."""


@dataclass(frozen=True, slots=True)
class SchedulerPorts:
    """What the scheduler needs from its surroundings.

    Attributes:
        fetch: start fetching a prompt; the answer comes back through `loaded` or `load_failed`.
        leaving_queue: a prefill step with these tickets was planned; they no longer count as waiting.
        over: a ticket's outcome, called when everything that it held is free. Another outcome may have been
            decided elsewhere before.
        service_seconds: how long a ticket will take on the device while others wait for it; 0 while none do.
    """

    fetch: Fetch
    leaving_queue: Callable[[Sequence[Ticket], float], None]
    over: Callable[[Ticket, RequestOutcome | None], None]
    service_seconds: Callable[[Ticket], float]
    clock: Callable[[], float]


class Scheduler:
    """One host's scheduler. Used from one thread at a time.

    The life of a ticket: `arrive` -> (loading) -> queued -> `plan` puts it in a step -> `absorb` reads the
    result -> decode steps -> over. `abandon` ends it at any point if its outcome was decided elsewhere.

    Attributes:
        last_prefill: the prefill step whose result was read last.
    """

    def __init__(
        self,
        ladder: Ladder,
        prompt_row_capacity: int,
        vocab_size: int,
        *,
        config: EngineConfig,
        host: HostPromptTier,
        detokenise: Detokenise,
        metrics: EngineMetrics,
        ports: SchedulerPorts,
        queue: FairQueue[Ticket] | None = None,
    ) -> None:
        self._config = config
        self._host = host
        self._metrics = metrics
        self._ports = ports
        self._queue: FairQueue[Ticket] = queue if queue is not None else FairQueue()
        self._rows = PromptRows(prompt_row_capacity)
        self._shares = Shares(config.tenant_memory_seconds, ports.clock)
        self._slots = SlotTable(ladder.blocks, config.reserved_slots, self._may_take_last)
        buckets = BucketChooser(ladder, config)
        self._batcher = Batcher(config, self._queue, self._rows, self._slots, host, buckets, vocab_size)
        self._loading = Loading(host, ports.fetch, config.loader_threads, self._enqueue)
        self._collector = Collector(config.eos_id, detokenise, self._slots, metrics, self._end)
        self._prefilling: set[Ticket] = set()
        self._decoding: set[Ticket] = set()
        self._policy = PrefillDecodePolicy(
            self._slots,
            self._shares,
            self._queue.waiting,
            config.protect_decode_rounds,
            config.prefill_token_budget,
        )
        self._late_answers = LateAnswers(ports.over, config.protect_decode_rounds, ports.clock)
        self._times = StepTimes(ports.clock)
        self._halved: Halved | None = None
        self._first_half = 0.0
        self._steps = 0
        self._queued_scores = 0
        self._used: dict[str, tuple[PromptHandle, ...]] = {}
        self._in_flight = 0
        self._interactive_came = -math.inf
        self._absorbed = -math.inf
        self.last_prefill: PrefillSummary | None = None

    # Tickets come and go.

    def arrive(self, ticket: Ticket) -> None:
        """Add a newly accepted ticket."""
        if ticket.settled:
            self._end(ticket, None)
            return
        self._shares.seen(ticket.origin.tenant, ticket.origin.weight)
        if ticket.origin.priority == "interactive":
            self._interactive_came = self._ports.clock()
        if all(p.digest in self._host or p.digest in self._rows for p in ticket.fit.prompts):
            for prompt in ticket.fit.prompts:
                if prompt.digest in self._host:
                    self._host.hold(prompt.digest)
                    ticket.holds.append(prompt.digest)
            self._enqueue(ticket)
        else:
            self._loading.begin(ticket)

    def abandon(self, ticket: Ticket) -> None:
        """Free what a ticket holds if its outcome was decided elsewhere."""
        self._end(ticket, None)

    def loaded(self, digest: str, values: Any) -> None:
        """A prompt was loaded from the store; its values are checked and in the compute dtype."""
        self._loading.loaded(digest, values)

    def load_failed(self, digest: str, error: ChorusError) -> None:
        """A prompt could not be loaded: fail the requests that need it."""
        for ticket in self._loading.failed(digest):
            ticket.phase = TicketPhase.ARRIVED
            self._end(ticket, FailedEvent(error))

    def pin(self, prompt: PromptHandle) -> None:
        """Keep a prompt on the device once it is there.

        Raises:
            InvalidInputError: pinned prompts would exceed `pinned_prompt_rows`.
        """
        if self._rows.pinned + prompt.length > self._config.pinned_prompt_rows:
            raise InvalidInputError(
                f"pinning {prompt.length} rows exceeds pinned_prompt_rows = "
                f"{self._config.pinned_prompt_rows} ({self._rows.pinned} are pinned); "
                "raise the setting or unpin another prompt",
                field="pinned_prompt_rows",
            )
        self._rows.pin(prompt)

    def unpin(self, digest: str) -> None:
        """Allow a pinned prompt to be evicted again."""
        self._rows.unpin(digest)

    # Steps go out.

    def plan(self) -> Step | None:
        """The next step; None if there is nothing to do until a result or a ticket comes.

        Prefill steps go first when it is their turn (`PrefillDecodePolicy`).
        """
        if self._late_answers:
            self._late_answers.hand_over(self._policy.quiet_decodes)
        if self._in_flight and (self._policy.waits_for_results() or self._leaves_room(self._queue.head())):
            return None
        self._drop_half_for_nobody()
        step = self._plan_prefill() or self._plan_decode()
        if step is None and self._halved is not None and not self._in_flight:
            step = self._plan_half()
        return step

    def dispatched(self, step: Step) -> None:
        """Note that the executor took the step, so that the host copies that it read may be evicted."""
        self._in_flight += 1
        if isinstance(step, PrefillStep):
            for ticket in step.tickets:
                drop_holds(self._host, ticket)
                self._note_use(ticket)
            self._loading.pump()

    def absorb(self, step: Step, result: StepResult) -> None:
        """Read a step's result. Steps are absorbed in the order in which they were dispatched."""
        self._in_flight -= 1
        now = self._ports.clock()
        alone = step.planned >= self._absorbed  # nothing was in flight when it was planned
        seconds, self._absorbed = now - max(step.planned, self._absorbed), now
        if isinstance(step, PrefillStep) and step.only_encodes:
            self._first_half = seconds
            return
        first_half = self._first_half if isinstance(step.plan, ScorePlan) and step.plan.encoded else 0.0
        seconds += first_half
        block = self._slots.blocks[step.plan.block] if isinstance(step, DecodeStep) else None
        self._policy.took(step, seconds, alone=alone)
        if alone:
            self._times.took(step, None if block is None else block.shape, seconds)
        if isinstance(step, DecodeStep):
            if not isinstance(result, DecodeResult):
                raise InternalError(f"step {step.plan.step} answered with {type(result).__name__}")
            self._late_answers.decoded(seconds)
            self._collector.decode(step, result, now)
            self._metrics.decode_step(len(step.uses), now - step.planned)
            return
        for acquired in step.acquired:
            self._rows.release(acquired.digests)
        self._count_batch(step, now, first_half)
        if isinstance(result, ScoreResult):
            self._collect_score(step, result, now)
        elif isinstance(result, PrefillResult):
            self._collect_prefill(step, result, now)
        else:
            raise InternalError(f"step {step.plan.step} answered with {type(result).__name__}")

    # Internals.

    @property
    def _interactive_come(self) -> bool:
        return self._ports.clock() - self._interactive_came <= _MOMENT_SECONDS

    def _may_take_last(self, ticket: Ticket, held: int, total: int) -> bool:
        """Whether a ticket may have the last slots of a shape. One of a batch that holds some may not while
        interactive requests keep coming, for they would wait until it is done."""
        if ticket.origin.priority == "batch" and self._interactive_come:
            origin, shape = ticket.origin, ticket.fit.shape
            blocks = (block for block in self._slots.blocks if block.shape == shape)
            holders = (use.ticket.origin for block in blocks for use in block.uses.values())
            if any((each.tenant, each.priority) == (origin.tenant, "batch") for each in holders):
                return False
        return self._shares.below(ticket, held, total)

    def _leaves_room(self, head: Waiting[Ticket] | None) -> bool:
        """Whether there is work of class batch while interactive requests are under way or keep coming. A
        step that queues behind another would delay the next of them by both."""
        classes = {ticket.origin.priority for ticket in (*self._decoding, *self._prefilling)}
        if self._interactive_come:
            classes.add("interactive")
        if head is not None:
            classes.add(head.item.origin.priority)
        return len(classes) == 2

    def _enqueue(self, ticket: Ticket) -> None:
        self._queued_scores += ticket.kind == "score"
        ticket.phase, ticket.queued = TicketPhase.QUEUED, self._ports.clock()
        origin = ticket.origin
        self._queue.push(
            ticket,
            key=ticket.key,
            tenant=origin.tenant,
            weight=origin.weight,
            priority=origin.priority,
            cost=ticket.fit.cost,
            number=ticket.number,
        )

    def _end(self, ticket: Ticket, outcome: RequestOutcome | None) -> None:
        """Free everything a ticket holds, then report its outcome; None if that was decided elsewhere."""
        match ticket.phase:
            case TicketPhase.OVER:
                return
            case TicketPhase.LOADING:
                self._loading.abandon(ticket)
            case TicketPhase.QUEUED:
                self._queue.remove(ticket.key)
                self._queued_scores -= ticket.kind == "score"
        self._prefilling.discard(ticket)
        self._decoding.discard(ticket)
        waits = self._policy.yields_to_quiet(ticket.origin.tenant)
        self._slots.leave(ticket)
        drop_holds(self._host, ticket)
        ticket.phase = TicketPhase.OVER
        self._shares.seen(ticket.origin.tenant, ticket.origin.weight)
        if outcome is not None and waits:
            self._late_answers.keep(ticket, outcome)
        else:
            self._ports.over(ticket, outcome)
        self._loading.pump()

    def _plan_prefill(self) -> PrefillStep | None:
        """The next prefill step, or half of one, if it is its turn and it finds places."""
        held_back, half = self._policy.held_back(), self._halved
        head = self._batcher.head(held_back)
        if half is not None and half.goes_before(head, held_back):
            return self._plan_half() if self._policy.may_prefill(half.waiting) else None
        if head is None or not self._policy.may_prefill(head):
            return None
        # With every slot in use only a score, which needs none, could be in a prefill step.
        room = self._queued_scores > 0 or self._slots.any_free
        step = self._plan_batch(held_back) if room else None
        if step is None and half is not None and not half.is_held(held_back):
            # Who goes first finds no place; it may be the half's prompt rows that are in the way.
            step = self._plan_half() if self._policy.may_prefill(half.waiting) else None
        return step

    def _plan_batch(self, held_back: Set[str]) -> PrefillStep | None:
        found = self._batcher.gather(self._is_late, held_back, self._policy.may_join)
        while found.late or found.unloaded:
            self._clear_way(found)
            # Shares and holds have changed, so what was gathered before may no longer fit.
            found = self._batcher.gather(self._is_late, held_back, self._policy.may_join)
        if not found.tickets:
            return None
        half = self._halved
        if half is not None and not half.is_held(held_back) and of_batch(found.tickets):
            return None  # it began before these
        now = self._ports.clock()
        times = self._times if self._interactive_come else None
        short = self._policy.waits_for_results()
        step = self._batcher.place(found, self._steps, now, times, short=short)
        if step is None:
            if not (self._in_flight or self._slots.in_use or self._halved):
                raise InternalError(
                    "a request's prompts fit the device table but found no rows in an idle engine"
                )
            return None
        for ticket in step.tickets:
            ticket.phase, ticket.dispatched = TicketPhase.PREFILLING, now
            self._queued_scores -= ticket.kind == "score"
            self._prefilling.add(ticket)
        self._ports.leaving_queue(step.tickets, now)
        if self._halved is not None:
            self._halved.set_aside_once()
        elif times is not None and Halved.halves(step) and not times.bears(step):
            self._halved = Halved(step)
            return self._plan_half()
        self._steps += 1
        self._note_encoding(step)
        return step

    def _plan_half(self) -> PrefillStep:
        """The next half of the score step that is done in two."""
        assert self._halved is not None
        step = self._halved.next_half(self._steps, self._ports.clock())
        self._steps += 1
        if step.only_encodes:
            self._note_encoding(step)
        else:
            self._halved = None
        return step

    def _drop_half_for_nobody(self) -> None:
        """Give up a score step of which a half is done if all its requests have left."""
        half = self._halved
        if half is None or self._in_flight:
            return
        if any(ticket.phase is TicketPhase.PREFILLING for ticket in half.step.tickets):
            return
        for acquired in half.step.acquired:
            self._rows.release(acquired.digests)
        self._halved = None

    def _note_encoding(self, step: PrefillStep) -> None:
        L = step.plan.bucket[1]
        self._policy.encoded(step.plan.tokens, self._batcher.most_rows(L) * L)

    def _clear_way(self, found: Gathered) -> None:
        """End tickets that are too late, and fetch prompts again if they were evicted while their tickets
        waited."""
        for ticket in found.late:
            self._end(
                ticket,
                FailedEvent(
                    DeadlineExceededError(
                        "The deadline could no longer be met: allow more time or try again later."
                    )
                ),
            )
        for ticket in found.unloaded:
            self._queue.remove(ticket.key)
            self._queued_scores -= ticket.kind == "score"
            self._loading.begin(ticket)

    def _is_late(self, ticket: Ticket) -> bool:
        if ticket.deadline is None or not self._config.shed_unmeetable or ticket.settled:
            return False
        return self._ports.clock() + self._ports.service_seconds(ticket) > ticket.deadline

    def _plan_decode(self) -> DecodeStep | None:
        wanting = [block for block in self._slots.blocks if block.wants_decode]
        if not wanting:
            return None
        block = self._policy.next_to_decode(wanting)
        plan = self._decode_plan(block)
        self._steps += 1
        block.last_decode = self._steps
        self._policy.decoded(block)
        return DecodeStep(plan, dict(block.uses), self._ports.clock())

    def _decode_plan(self, block: Block) -> DecodePlan:
        release = tuple(sorted(block.to_release))
        block.to_release.clear()
        block.releasing.update(release)
        block.in_flight += 1
        mode, tokens = block.mode or "plain", self._config.decode_tokens_per_dispatch
        if self._interactive_come and of_batch(use.ticket for use in block.uses.values()):
            tokens = self._times.bearable_tokens(block.shape, mode, tokens)
        for use in block.uses.values():
            use.planned += tokens
        return DecodePlan(self._steps, block.index, mode, tokens, release)

    def _collect_prefill(self, step: PrefillStep, result: PrefillResult, now: float) -> None:
        for row, ticket in enumerate(step.tickets):
            if ticket.phase is not TicketPhase.PREFILLING:
                continue
            ticket.encoded = now
            self._prefilling.discard(ticket)
            if row in result.failed:
                self._slots.leave(ticket, inactive=True)
                self._end(ticket, FailedEvent(not_finite()))
                continue
            ticket.phase = TicketPhase.DECODING
            self._decoding.add(ticket)
            self._collector.begin(ticket)

    def _collect_score(self, step: PrefillStep, result: ScoreResult, now: float) -> None:
        for ticket, values in zip(step.tickets, result.log_probabilities, strict=True):
            if ticket.phase is not TicketPhase.PREFILLING:
                continue
            ticket.encoded = now
            if any(math.isnan(value) for value in values):
                self._end(ticket, FailedEvent(not_finite()))
            else:
                self._end(ticket, ScoredEvent(tuple(values), ticket.fit.length, ticket.timings(now)))

    def _count_batch(self, step: PrefillStep, now: float, first_half: float) -> None:
        tickets, metrics = step.tickets, self._metrics
        self.last_prefill = PrefillSummary(
            tickets[0].kind,
            Counter(ticket.origin.task for ticket in tickets),
            sum(ticket.fit.length for ticket in tickets),
            step.plan.tokens,
            now,
        )
        metrics.prompt_hits.inc(sum(acquired.hits for acquired in step.acquired))
        metrics.prompt_loads.inc(sum(len(acquired.loads) for acquired in step.acquired))
        metrics.prompt_evictions.inc(sum(acquired.evictions for acquired in step.acquired))
        metrics.prefill_step(
            tickets[0].kind,
            rows=len(tickets),
            tasks=len(self.last_prefill.tasks),
            real_tokens=self.last_prefill.tokens,
            padded_tokens=step.plan.tokens,
            seconds=first_half + now - step.planned,
        )

    # Gauges and checks.

    def _note_use(self, ticket: Ticket) -> None:
        task = ticket.origin.task
        if task:
            self._used.pop(task, None)
            self._used[task] = ticket.fit.prompts
            if len(self._used) > LISTED_TASKS:
                del self._used[next(iter(self._used))]

    def resident_tasks(self) -> tuple[str, ...]:
        """The tasks used last whose prompts are all in the device's table, latest first."""
        used = reversed(self._used.items())
        return tuple(task for task, prompts in used if all(each.digest in self._rows for each in prompts))

    def on_device(self) -> Mapping[str, int]:
        """The requests on the device by task; the base model's name is empty."""
        return Counter(ticket.origin.task for ticket in (*self._prefilling, *self._decoding))

    def stats(self) -> EngineStats:
        """The scheduler's gauges; the engine adds its own."""
        return EngineStats(
            queued=len(self._queue),
            loading=self._loading.tickets,
            prefilling=len(self._prefilling),
            decoding=len(self._decoding),
            slots_in_use=self._slots.in_use,
            slots_total=self._slots.total,
            encoder_memories=self._slots.groups,
            rows_capacity=self._rows.capacity,
            rows_resident=self._rows.resident,
            rows_in_use=self._rows.in_use,
            rows_pinned=self._rows.pinned,
            prompts_resident=self._rows.prompts,
            host_bytes=self._host.size_bytes,
            host_held_bytes=self._host.held_bytes,
            host_prompts=len(self._host),
            loads_in_flight=self._loading.fetches,
            in_flight_steps=self._in_flight,
            steps=self._steps,
        )

    def check_idle(self) -> None:
        """Raises AssertionError if an idle scheduler still holds anything."""
        self._rows.check_idle()
        self._slots.check_idle()
        if not self.stats().idle or self._queued_scores or self._late_answers:
            raise AssertionError(f"the idle scheduler still holds something: {self.stats()}")
