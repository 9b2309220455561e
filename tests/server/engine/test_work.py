"""The work unit: what it counts, and that ladder, neighbours and the device's settings never change it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import TINY_LADDER
from chorus_server.engine.plans import BlockShape, Ladder
from chorus_server.engine.requests import PromptHandle, Request, SequenceOutput
from chorus_server.engine.work import Settled, work_units
from chorus_server.errors import ChorusError
from tests.server.engine.engine_tools import DictSource, generate, running_engine, score

PROMPT = PromptHandle("p" * 64, 5)
WIDE_LADDER = Ladder(
    input_buckets=((2, 32), (8, 64)),
    blocks=(BlockShape(64, 32, 16), BlockShape(64, 32, 16)),
    score_buckets=((8, 8),),
    rows_per_load=16,
)


def requests() -> list[Request]:
    """One of each kind."""
    return [
        generate((5, 6, 1), max_new_tokens=6),
        generate(PROMPT, (7, 8, 9, 1), max_new_tokens=8, stop=("<",)),
        generate((5, 1), max_new_tokens=4, n=3, temperature=1.0, seed=3),
        generate((9, 9, 1), max_new_tokens=5, num_beams=4, n=2),
        score(PROMPT, (5, 1), targets=[[4, 1], [5, 6, 1]]),
    ]


def output(tokens: int) -> SequenceOutput:
    return SequenceOutput((7,) * tokens, (0.0,) * tokens, 0.0, "stop")


@pytest.mark.parametrize(
    ("request_", "produced", "units"),
    [
        (generate((5, 6, 1), max_new_tokens=6), None, 3 + 6),
        (generate((5, 6, 1), max_new_tokens=6), [output(2)], 3 + 2),
        (generate((5, 6, 1), max_new_tokens=6), [], 3),
        (generate(PROMPT, (5, 6, 1), max_new_tokens=6), [output(0)], 5 + 3),
        (generate((5, 1), max_new_tokens=6, n=3, temperature=1.0), None, 2 + 18),
        (generate((5, 1), max_new_tokens=6, n=3, temperature=1.0), [output(1), output(6), output(3)], 2 + 10),
        (generate((5, 1), max_new_tokens=6, num_beams=4), None, 2 + 24),
        (generate((5, 1), max_new_tokens=6, num_beams=4, n=2), [output(3), output(5)], 2 + 20),
        (score(PROMPT, (5, 1), targets=[[4, 1], [5, 6, 1]]), None, 7 + 5),
        (score((5, 1), targets=[[4, 1]]), (), 2 + 2),
    ],
)
def test_it_counts_rows_tokens_and_what_was_made(
    request_: Request, produced: Sequence[SequenceOutput] | None, units: int
) -> None:
    assert work_units(request_, produced) == units


def settled_by(
    ask: Callable[[Any], None] | None = None, may_die: bool = False, crowd: int = 0, **given: Any
) -> list[Settled]:
    """What an engine says that each of `requests` came to, in their order."""
    told: dict[str, Settled] = {}
    all_told = threading.Event()
    mine = requests()
    others = [generate((4,) * (1 + number % 16), max_new_tokens=8) for number in range(crowd)]

    def on_settled(settled: Settled) -> None:
        told[settled.origin.request_id] = settled
        if len(told) == len(mine) + len(others):
            all_told.set()

    source = DictSource()
    source.add(PROMPT.digest, PROMPT.length)
    with running_engine(source=source, on_settled=on_settled, may_die=may_die, **given) as (engine, _):
        mixed = [*others[::2], *mine, *others[1::2]]
        handles = engine.submit_all(mixed)
        for handle in handles:
            assert not isinstance(handle, ChorusError), handle
        if ask is not None:
            ask(handles)
        assert all_told.wait(300)
    return [told[request.origin.request_id] for request in mine]


def bare(found: Sequence[Settled]) -> list[Settled]:
    """Without the ids and times, which are new each time."""
    return [replace(each, origin=replace(each.origin, request_id=""), timings=None) for each in found]


def test_ladder_neighbours_and_settings_never_change_it() -> None:
    alone = settled_by()
    assert [settled.outcome for settled in alone] == ["answered"] * 5
    assert [settled.tokens_in for settled in alone] == [3, 9, 2, 3, 7]
    assert alone[-1].tokens_out == 0 and alone[-1].work_units == 7 + 5
    for settled, request in zip(alone, requests(), strict=True):
        assert settled.work_units <= work_units(request), "never more than was reserved"
    assert alone[0].work_units == 3 + alone[0].tokens_out
    for other in (
        settled_by(fake={"ladder": WIDE_LADDER}),
        settled_by(crowd=40),
        settled_by(crowd=40, fake={"ladder": WIDE_LADDER}),
        settled_by(config=EngineConfig(check_integrity=True, decode_tokens_per_dispatch=3)),
        settled_by(config=EngineConfig(check_integrity=True, batch_invariant=True)),
    ):
        assert bare(other) == bare(alone)


def test_control_the_fair_queues_price_depends_on_the_ladder() -> None:
    from chorus_server.engine.scheduler.fitting import Fitter

    prices = [
        [Fitter(ladder, 1000, 40).fit(request).cost for request in requests()]
        for ladder in (TINY_LADDER, WIDE_LADDER)
    ]
    assert prices[0] != prices[1]


def test_what_the_model_never_read_costs_nothing() -> None:
    gate = threading.Event()

    def hold(plan: object) -> None:
        assert gate.wait(300)

    def cancel(handles: Any) -> None:
        for handle in handles:
            handle.cancel()
        gate.set()

    # The first request's step is held before it is dispatched, so nothing has been read yet.
    found = settled_by(cancel, fake={"on_dispatch": hold})
    assert {settled.outcome for settled in found} == {"cancelled"}
    unread = [settled for settled in found if settled.tokens_in == 0]
    assert unread, "those behind the held step"
    assert all((settled.tokens_out, settled.work_units) == (0, 0) for settled in unread)


def test_a_failure_costs_what_was_done_until_then() -> None:
    def die(plan: object) -> None:
        raise RuntimeError("the device is gone")

    found = settled_by(may_die=True, fake={"on_collect": die})
    assert {settled.outcome for settled in found} == {"failed"}
    assert all(settled.tokens_out == 0 for settled in found)
    assert any(settled.work_units == settled.tokens_in == 3 for settled in found), "read, and nothing made"
