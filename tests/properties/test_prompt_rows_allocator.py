"""The row allocator as a state machine: rows are never shared, lost, or taken from a prompt in use or
pinned."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chorus_server.engine.requests import PromptHandle
from chorus_server.engine.scheduler.prompt_rows import Acquired, PromptRows

CAPACITY = 24
HANDLES = [PromptHandle(f"p{length}{kind}", length) for length in (1, 3, 6, 9) for kind in "xyz"]


class RowsMachine(RuleBasedStateMachine):
    rows_type: type[PromptRows] = PromptRows

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.rows_type(CAPACITY)
        self.table: dict[int, tuple[str, int]] = {}
        self.held: list[tuple[Acquired, dict[str, tuple[int, ...]]]] = []
        self.pins: set[str] = set()

    @rule(wanted=st.lists(st.sampled_from(HANDLES), min_size=1, max_size=3, unique=True))
    def acquire(self, wanted: list[PromptHandle]) -> None:
        got = self.rows.acquire(wanted)
        if got is None:
            assert self.held or self.pins, "an idle table has room for everything it can hold"
            return
        for load in got.loads:
            for place, row in enumerate(load.rows):
                self.table[row] = (load.digest, place)
        seen = {prompt.digest: self.rows.rows_of(prompt.digest) for prompt in wanted}
        for prompt in wanted:
            assert len(seen[prompt.digest]) == prompt.length
        self.held.append((got, seen))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        got, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.rows.release(got.digests)

    @precondition(lambda self: len(self.pins) < 2)
    @rule(prompt=st.sampled_from(HANDLES[:6]))
    def pin(self, prompt: PromptHandle) -> None:
        self.rows.pin(prompt)
        self.pins.add(prompt.digest)

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        digest = min(self.pins)  # a set's own order is another in every process
        self.pins.remove(digest)
        self.rows.unpin(digest)

    @invariant()
    def what_is_in_use_is_still_there(self) -> None:
        for _, seen in self.held:
            for digest, rows in seen.items():
                assert self.rows.rows_of(digest) == rows
                assert [self.table[row] for row in rows] == [(digest, place) for place in range(len(rows))]

    @invariant()
    def the_gauges_add_up(self) -> None:
        assert 0 <= self.rows.in_use <= self.rows.resident <= CAPACITY
        if not self.held:
            self.rows.check_idle()


def check(machine: type[RowsMachine], **more: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=80, stateful_step_count=40, deadline=None, derandomize=True, **more),
    )


def test_rows_are_never_shared_lost_or_taken_in_use() -> None:
    check(RowsMachine)


class EvictsInUse(PromptRows):
    """Control: looks at no reference count."""

    def _victims(self, needed: int, wanted: set[str]) -> list[str] | None:
        return [digest for digest in self._resident if digest not in wanted] if needed > 0 else []


class LosesRows(PromptRows):
    """Control: forgets a row at each eviction."""

    def _drop(self, digest: str) -> None:
        self._free.extend(self._resident.pop(digest).rows[1:])


@pytest.mark.parametrize("broken", [EvictsInUse, LosesRows])
def test_a_broken_allocator_does_not_pass(broken: type[PromptRows]) -> None:
    machine = type("BrokenMachine", (RowsMachine,), {"rows_type": broken})
    with pytest.raises((AssertionError, KeyError, IndexError)):
        check(machine, phases=(Phase.generate,), report_multiple_bugs=False)


def test_the_least_recently_used_prompt_goes_first() -> None:
    rows = PromptRows(4)
    old, new, third = (PromptHandle(name, 2) for name in ("old", "new", "third"))
    for prompt in (old, new, old):
        got = rows.acquire([prompt])
        assert got is not None
        rows.release(got.digests)
    got = rows.acquire([third])
    assert got is not None and got.evictions == 1
    assert "old" in rows and "new" not in rows
