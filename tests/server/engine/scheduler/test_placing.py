"""Where requests go: shapes, buckets, slots, modes; and what no shape holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import TINY_LADDER
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, PrefillPlan, ScorePlan, StepPlan
from chorus_server.engine.requests import Priority, PromptHandle, Request
from chorus_server.engine.scheduler.batching import Batcher
from chorus_server.engine.scheduler.buckets import BucketChooser
from chorus_server.engine.scheduler.fitting import Fitter
from chorus_server.engine.scheduler.prefill_decode_policy import PrefillDecodePolicy
from chorus_server.engine.scheduler.slots import SlotTable
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.engine.target_trees import MOST_TREES
from chorus_server.errors import InputTooLongError, InvalidInputError
from tests.server.engine.engine_tools import generate, score
from tests.server.engine.virtual_time import Simulation

FITTER = Fitter(TINY_LADDER, 1000, 40)


@pytest.mark.parametrize(
    ("length", "new_tokens", "shape"),
    [
        (16, 8, BlockShape(16, 8, 8)),
        (17, 8, BlockShape(64, 32, 8)),
        (3, 9, BlockShape(64, 32, 8)),
        (64, 32, BlockShape(64, 32, 8)),
    ],
)
def test_the_smallest_block_that_holds_input_and_output(
    length: int, new_tokens: int, shape: BlockShape
) -> None:
    request = generate((4,) * length, max_new_tokens=new_tokens)
    assert FITTER.fit(request).shape == shape


@pytest.mark.parametrize(
    ("request_", "error", "field"),
    [
        (generate((4,) * 65), InputTooLongError, "input"),
        (generate((4, 1), max_new_tokens=33), InvalidInputError, "max_new_tokens"),
        (generate((4, 1), n=9, temperature=1.0), InvalidInputError, "n"),
        (generate(()), InvalidInputError, "input"),
        (generate((4, 1000)), InvalidInputError, "input"),
        (generate((-1, 1)), InvalidInputError, "input"),
        (generate(PromptHandle("p", 41), (1,)), InvalidInputError, "task"),
        (generate(PromptHandle("p", 2), PromptHandle("p", 3), (1,)), InvalidInputError, "input"),
        (score((4, 1), targets=[]), InvalidInputError, "targets"),
        (score((4, 1), targets=[(3, 1), ()]), InvalidInputError, "targets"),
        (score((4, 1), targets=[(3, 1), (1000,)]), InvalidInputError, "targets.1"),
        (score((4, 1), targets=[(3, 1), (3,) * 9]), InputTooLongError, "targets.1"),
    ],
)
def test_what_no_shape_holds_is_refused_and_named(
    request_: Request, error: type[InvalidInputError], field: str
) -> None:
    with pytest.raises(error) as refused:
        FITTER.fit(request_)
    assert refused.value.field == field


def test_a_text_id_cannot_name_a_prompt_row() -> None:
    """Id V + r is prompt row r: as text it would read another tenant's prompt."""
    with pytest.raises(InvalidInputError, match="Token ids"):
        FITTER.fit(generate((1003, 1)))


@pytest.mark.parametrize(("targets", "nodes"), [(1, 4), (3, 4), (4, 8), (7, 8), (8, 12), (15, 20)])
def test_targets_are_priced_by_the_trees_that_they_take(targets: int, nodes: int) -> None:
    """Trees have 4 or 8 nodes here; a target of one piece and its end adds one to the root."""
    fit = FITTER.fit(score((4, 1), targets=[(3 + place, 1) for place in range(targets)]))
    assert (fit.nodes, fit.cost) == (nodes, 16 + nodes)


def test_targets_that_take_too_many_trees_together_are_refused() -> None:
    most = [(first, second, 1) for first in range(3, 67) for second in range(3, 6)]
    assert FITTER.fit(score((4, 1), targets=most)).nodes <= MOST_TREES * 8
    with pytest.raises(InputTooLongError, match="send fewer or shorter ones") as refused:
        FITTER.fit(score((4, 1), targets=[(n,) * 6 + (1,) for n in range(3, 200)]))
    assert refused.value.field == "targets"


LADDER = Ladder(
    ((1, 16), (2, 16), (4, 16), (8, 16), (1, 64), (8, 64)),
    (BlockShape(64, 8, 8), BlockShape(128, 8, 8)),
    ((2, 4),),
)


@pytest.mark.parametrize(
    ("lengths", "length", "axis", "count"),
    [
        ([16], 16, (16, 1), 1),
        ([16] * 3, 16, (64, 4), 3),
        ([16] * 5, 16, (64, 4), 4),
        ([16] * 6, 16, (128, 8), 6),
        ([16] * 20, 16, (128, 8), 8),
        ([64] * 2, 64, (64, 1), 1),
        ([64] * 3, 64, (256, 8), 3),
        ([64] * 5, 64, (256, 8), 4),
        ([64] * 7, 64, (512, 8), 7),
        ([50] * 5, 64, (256, 8), 5),
        ([45] * 8, 64, (512, 8), 8),
        ([40] * 8, 64, (256, 8), 6),
        ([40] * 3 + [20] * 5, 64, (256, 8), 8),
        ([20] * 8, 64, (256, 8), 8),
    ],
)
def test_batches_keep_padding_within_bounds(
    lengths: list[int], length: int, axis: tuple[int, int], count: int
) -> None:
    """A bucket of 8 rows of 64 has an axis of 512 tokens and one of 256, because 64 is a block's length, and
    another block is longer."""
    chooser = BucketChooser(LADDER, EngineConfig(max_padding_waste=0.25))
    assert chooser.choose(lengths, length, fixed=False) == count
    assert chooser.axis(lengths[:count], length, fixed=False) == axis


def test_an_idle_server_does_not_wait_to_fill_a_batch() -> None:
    ladder = Ladder(((8, 16),), (BlockShape(16, 8, 8),), ((2, 4),))
    chooser = BucketChooser(ladder, EngineConfig())
    assert chooser.choose([16], 16, fixed=False) == 1 and chooser.axis([16], 16, fixed=False) == (64, 8)


def test_the_token_budget_bounds_a_pass() -> None:
    chooser = BucketChooser(LADDER, EngineConfig(prefill_token_budget=64))
    assert chooser.most_rows(16) == 4
    assert chooser.most_rows(64) == 1


def test_batch_invariant_passes_have_one_shape_a_class() -> None:
    work: list[Request] = [generate((4,) * (1 + 7 * i % 40), max_new_tokens=8) for i in range(60)]
    work += [score((4,) * (1 + 5 * i % 40), targets=[(3, 1)]) for i in range(30)]

    def shapes(batch_invariant: bool) -> set[tuple[tuple[int, int], int]]:
        sim = Simulation(config=EngineConfig(batch_invariant=batch_invariant))
        sim.run([(0.001 * (i // 7), request) for i, request in enumerate(work)])
        assert len(sim.served) == len(work)
        batches = [plan for plan in sim.executor.plans if isinstance(plan, PrefillPlan | ScorePlan)]
        for plan in batches:
            if batch_invariant:
                assert all(FITTER.fit(generate(ids)).input_class == plan.bucket[1] for ids in plan.inputs)
        return {(plan.bucket, plan.tokens) for plan in batches}

    assert shapes(batch_invariant=True) == {((4, 16), 64), ((4, 64), 256)}
    assert len(shapes(batch_invariant=False)) > 2


def test_requests_of_fixed_shape_have_one_by_their_length_and_no_batch_with_others() -> None:
    usual = [score((4,) * (1 + 7 * i % 40), targets=[(3, 1)]) for i in range(40)]
    fixed = [replace(score((5,) * (1 + 7 * i % 40), targets=[(3, 1)]), fixed_shape=True) for i in range(40)]
    sim = Simulation(config=EngineConfig())
    sim.run([(0.001 * (i // 7), request) for i, request in enumerate([*usual, *fixed])])
    assert len(sim.served) == 80
    plans = [plan for plan in sim.executor.plans if isinstance(plan, ScorePlan)]
    of_fixed = [plan for plan in plans if any(ids[0] == 5 for ids in plan.inputs)]
    assert all(ids[0] == 5 for plan in of_fixed for ids in plan.inputs)
    shapes = {len(ids): (plan.bucket, plan.tokens) for plan in of_fixed for ids in plan.inputs}
    assert all(shapes[len(ids)] == (plan.bucket, plan.tokens) for plan in of_fixed for ids in plan.inputs)
    # Four rows of up to 8 tokens fit half of the axis of those of up to 16.
    assert set(shapes.values()) == {((4, 16), 32), ((4, 16), 64), ((4, 64), 256)}
    assert {n for n, shape in shapes.items() if shape == ((4, 16), 32)} == {n for n in shapes if n <= 8}
    assert len({(plan.bucket, plan.tokens) for plan in plans}) > 2, "control: the usual ones take what fits"


def rounds_of_short_answers(prefill_token_budget: int, tenants: int = 1) -> int:
    """Decode plans that 64 requests of 4 tokens take, in a block of 16 slots filled by passes of 4."""
    ladder = Ladder(((1, 16), (4, 16)), (BlockShape(16, 8, 16),), ((2, 4),))
    sim = Simulation(ladder, EngineConfig(prefill_token_budget=prefill_token_budget))
    for n in range(64):
        ids = (5,) * 16  # four of them fill the axis
        sim.submit(generate(ids, tenant=f"t{n % tenants}", max_new_tokens=4, min_new_tokens=4))
    sim.run()
    assert len(sim.served) == 64
    return sum(isinstance(plan, DecodePlan) for plan in sim.executor.plans)


def test_slots_are_filled_before_a_decode_round() -> None:
    """A round costs the same however few of its slots are taken. The control encodes one pass a round."""
    control = rounds_of_short_answers(prefill_token_budget=64)
    assert control >= 16
    assert rounds_of_short_answers(prefill_token_budget=1024) <= control / 2


def seconds_of_texts() -> float:
    """96 answers of 8 to 32 tokens in 16 slots, refilled by passes of one row or of eight."""
    ladder = Ladder(((1, 32), (8, 32)), (BlockShape(32, 32, 16),), ((2, 4),))
    sim = Simulation(ladder)
    for n in range(96):
        wanted = 8 + 7 * n % 25
        sim.submit(generate((5, 1), max_new_tokens=wanted, min_new_tokens=wanted))
    sim.run()
    assert len(sim.served) == 96
    return sim.clock() - 100


def test_slots_that_come_free_are_refilled_before_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control owes a decode step after each prefill step, even of one row."""
    found, encoded = seconds_of_texts(), PrefillDecodePolicy.encoded
    monkeypatch.setattr(
        PrefillDecodePolicy, "encoded", lambda self, tokens, most: encoded(self, tokens, tokens)
    )
    assert found <= 0.95 * seconds_of_texts()


def wait_of_a_search_among_endless_plain_requests() -> float:
    ladder = Ladder(((1, 16), (4, 16)), (BlockShape(16, 8, 8),), ((2, 4),))
    sim = Simulation(ladder)
    lengths = cycle((2, 5, 8, 3, 7))  # so that their slots never fall empty together

    def plain() -> Request:
        wanted = next(lengths)
        return generate((5, 1), max_new_tokens=wanted, min_new_tokens=wanted)

    sim.on_over = lambda done: sim.submit(plain()) if sim.clock() < 101 else None
    search = generate((7, 1), max_new_tokens=8, num_beams=8, tenant="a")
    sim.run([(0.0, plain()) for _ in range(30)] + [(0.05, search)])
    modes = {plan.mode for plan in sim.executor.plans if isinstance(plan, DecodePlan)}
    assert modes == {"plain", "grouped"}
    return next(seconds for done, seconds, _ in sim.served if done is search)


def test_neither_mode_starves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block, and plain requests without end: a beam search still gets it, and gives it back."""
    assert wait_of_a_search_among_endless_plain_requests() < 0.5, "30 were ahead of it"
    monkeypatch.setattr(SlotTable, "_reserve", lambda self, ticket, shape: True)
    assert wait_of_a_search_among_endless_plain_requests() > 0.9, (
        "without reservations it waits until they end"
    )


def test_more_distinct_prompts_than_rows_take_turns() -> None:
    handles = [PromptHandle(f"p{i}", 10) for i in range(12)]
    sim = Simulation(rows=20, prompts={h.digest: np.ones((10, 3), np.float32) for h in handles})
    sim.run([(0.0, generate(handles[i % 12], (i, 1), max_new_tokens=4)) for i in range(48)])
    assert len(sim.served) == 48
    sim.scheduler.check_idle()


def test_pinned_prompts_stay() -> None:
    handles = [PromptHandle(f"p{i}", 5) for i in range(10)]
    config = EngineConfig(pinned_prompt_rows=5)
    sim = Simulation(config=config, rows=15, prompts={h.digest: np.ones((5, 3), np.float32) for h in handles})
    sim.scheduler.pin(handles[0])
    with pytest.raises(InvalidInputError, match="pinned_prompt_rows"):
        sim.scheduler.pin(handles[1])
    sim.run([(0.01 * i, generate(handles[i % 10], (i, 1), max_new_tokens=2)) for i in range(40)])
    loads = [
        load.digest for plan in sim.executor.plans if isinstance(plan, PrefillPlan) for load in plan.loads
    ]
    assert loads.count("p0") == 1 and loads.count("p1") > 1
    sim.scheduler.unpin("p0")
    assert sim.scheduler.stats().rows_pinned == 0


def test_a_reservation_from_behind_does_not_turn_away_those_accepted_before_it() -> None:
    sim = Simulation()
    shape = BlockShape(16, 8, 8)
    table = SlotTable([shape], 0, lambda ticket, held, total: True)

    def ticket(number: int, **settings: Any) -> Ticket:
        request = generate((4, 1), max_new_tokens=8, **settings)
        handle = RequestHandle(str(number), lambda error: None)
        return Ticket(request, sim.fitter.fit(request), handle, number, 0.0, None)

    assert table.place(ticket(1))
    table.begin_pass()
    accepted, group, behind = ticket(2), ticket(3, n=8, temperature=1.0), ticket(4)
    assert table.has_place(accepted)
    assert not table.has_place(group), "the block decodes plain requests: the group reserves it"
    assert not table.has_place(behind)
    assert table.place(accepted)
    assert not table.place(behind), "the control: those behind the reservation wait"


def test_a_prompt_evicted_by_the_request_before_it_in_the_batch_is_loaded_again() -> None:
    lengths = {"small": 3, "other": 3, "big": 8}
    prompts = {name: np.ones((length, 3), np.float32) for name, length in lengths.items()}
    config = EngineConfig(host_prompt_bytes=0, max_in_flight_steps=1)
    sim = Simulation(config=config, rows=12, prompts=prompts)
    small, other, big = (PromptHandle(name, length) for name, length in lengths.items())
    # "small" is on the device only; "big" is loaded while the device is busy, and takes its rows.
    work = [
        (0.0, generate(small, (4, 1), max_new_tokens=1)),
        (0.5, generate(other, (4, 1), max_new_tokens=1)),
        (1.0, generate(big, (4, 1), max_new_tokens=1)),
        (1.003, generate((4,) * 12, max_new_tokens=1)),
        (1.0045, generate(small, (5,) * 10, max_new_tokens=1)),
        *[(1.005, generate((6,) * 13, max_new_tokens=1)) for _ in range(2)],  # for one wide batch
    ]
    sim.run(work)
    assert len(sim.served) == len(work) and not sim.failed
    sim.scheduler.check_idle()


def test_one_tenants_mixed_lengths_still_fill_their_batches() -> None:
    """Passing over a longer request of the same tenant must not end the look down its queue."""
    rows: list[int] = []

    def cost(plan: StepPlan) -> float:
        if isinstance(plan, PrefillPlan):
            rows.append(len(plan.inputs))
        return 0.01

    sim = Simulation(cost=cost)
    short, long = generate((4,) * 16, max_new_tokens=4), generate((4,) * 60, max_new_tokens=4)
    mixed = [
        (0.0, replace(request, origin=replace(request.origin, request_id=f"m{number}")))
        for number, request in enumerate([short, long] * 8)
    ]
    sim.run(mixed)
    assert len(sim.served) == 16
    most = max(B for B, _ in TINY_LADDER.input_buckets)
    assert rows.count(most) == 16 // most


def shares_of_wide_passes() -> list[float]:
    """The used share of each pass of B = 8, while slots of one block come free one after another."""
    ladder = Ladder(((1, 16), (8, 16)), (BlockShape(16, 32, 16),), ((2, 4),))
    sim = Simulation(ladder)
    lengths = cycle((4, 9, 17, 30, 6, 23, 12))
    for _ in range(96):
        wanted = next(lengths)
        sim.submit(generate((4,) * 15 + (1,), max_new_tokens=wanted, min_new_tokens=wanted))
    sim.run()
    assert len(sim.served) == 96
    passes = [plan for plan in sim.executor.plans if isinstance(plan, PrefillPlan)]
    return [16 * len(plan.inputs) / plan.tokens for plan in passes if plan.bucket[0] == 8]


def test_a_wide_pass_is_filled_by_requests_that_find_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a fourth of a pass is padding. The control counts those that would each find a slot alone."""
    assert min(shares_of_wide_passes()) >= 0.75

    def all_that_sit(self: Batcher, tickets: list[Ticket], length: int, short: bool) -> list[Ticket]:
        return [ticket for ticket in tickets if self._slots.place(ticket)]

    monkeypatch.setattr(Batcher, "_seated", all_that_sit)
    assert min(shares_of_wide_passes()) <= 0.5


def test_of_a_tenant_whose_batch_may_not_have_the_last_slot_who_is_interactive_may() -> None:
    """Though the batch is asked about first in a pass."""
    shape = BlockShape(16, 8, 2)
    table = SlotTable([shape], 1, lambda ticket, held, total: ticket.origin.priority == "interactive")
    fitter = Fitter(Ladder(((1, 16),), blocks=(shape,), score_buckets=()), 1000, 40)

    def ticket(number: int, priority: Priority) -> Ticket:
        request = generate((4, 1), max_new_tokens=8, priority=priority)
        return Ticket(
            request, fitter.fit(request), RequestHandle(str(number), lambda error: None), number, 0.0, None
        )

    first, second, interactive = ticket(1, "batch"), ticket(2, "batch"), ticket(3, "interactive")
    assert table.has_place(first) and table.place(first)
    table.begin_pass()
    assert not table.has_place(second)  # the control
    assert table.has_place(interactive) and table.place(interactive)


@pytest.mark.parametrize("scores", [0, 1])
def test_with_every_slot_in_use_nobody_looks_through_the_queue(
    scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds may wait, and a look at each takes longer than a step's plan. A score needs no slot."""
    found: list[bool] = []
    honest = Batcher.gather

    def gather(batcher: Batcher, *given: Any) -> Any:
        found.append(batcher._slots.any_free)
        return honest(batcher, *given)

    monkeypatch.setattr(Batcher, "gather", gather)
    sim = Simulation(Ladder(((1, 16), (4, 16)), (BlockShape(16, 8, 8),), ((2, 4),)), EngineConfig())
    texts = [(0.0, generate((5, 1), max_new_tokens=8, min_new_tokens=8)) for _ in range(200)]
    asked = [(0.003 * n, score((4, 1), targets=[(3, 1)])) for n in range(40 * scores)]
    sim.run([*texts, *asked])
    assert len(sim.served) == 200 + len(asked)
    assert all(found) is not bool(scores)
