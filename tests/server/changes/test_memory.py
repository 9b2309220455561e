"""What is remembered, and until when; the clock is the test's."""

from __future__ import annotations

from chorus_server.changes.memory import SEEN_SECONDS, STALE_SECONDS, Memory
from tests.server.connections.bounded_harness import Clock


def kept(**answers: int) -> tuple[Memory[str, int], Clock]:
    clock = Clock()
    memory: Memory[str, int] = Memory(clock)
    memory.keep(answers, memory.asking())
    return memory, clock


def test_an_answer_is_fresh_for_a_second_and_then_a_spare() -> None:
    memory, clock = kept(a=1)
    clock.now += SEEN_SECONDS - 0.01
    assert memory.fresh("a") == 1
    clock.now += 0.02
    assert (memory.fresh("a"), memory.spare("a")) == (None, 1)
    clock.now += STALE_SECONDS
    assert memory.spare("a") is None


def test_a_reading_of_the_feed_makes_it_last() -> None:
    memory, clock = kept(a=1)
    for _ in range(100):
        clock.now += 0.9 * SEEN_SECONDS
        memory.confirm(clock.now)
    assert memory.fresh("a") == 1
    memory.confirm(clock.now - 5)  # a reading that began earlier takes nothing back
    assert memory.fresh("a") == 1
    clock.now += STALE_SECONDS - 0.01
    assert (memory.fresh("a"), memory.spare("a")) == (None, 1)


def test_only_what_a_change_names_is_dropped() -> None:
    memory, _ = kept(a=1, b=2, c=3)
    memory.drop_where(lambda key, answer: key == "a" or answer == 2)
    assert [memory.fresh(key) for key in "abc"] == [None, None, 3]
    assert memory.spare("a") is None
    memory.drop("c")
    assert memory.fresh("c") is None and len(memory) == 0


def test_an_answer_to_a_question_from_before_a_change_is_not_kept() -> None:
    memory, _ = kept(a=1)
    asked = memory.asking()
    memory.drop("a")
    memory.keep({"a": 1}, asked)
    assert memory.fresh("a") is None and memory.spare("a") is None
    memory.keep({"a": 2}, memory.asking())
    assert memory.fresh("a") == 2


def test_a_doubt_leaves_spares_and_asks_anew() -> None:
    memory, _ = kept(a=1)
    memory.doubt()
    assert (memory.fresh("a"), memory.spare("a")) == (None, 1)
    memory.keep({"a": 2}, memory.asking())
    assert memory.fresh("a") == 2


def test_those_that_were_used_last_are_kept() -> None:
    memory: Memory[int, int] = Memory(Clock(), most=3)
    for n in range(3):
        memory.keep({n: n}, memory.asking())
    assert memory.fresh(0) == 0
    memory.keep({3: 3}, memory.asking())
    assert [memory.fresh(n) for n in range(4)] == [0, None, 2, 3]
