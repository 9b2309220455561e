"""The token bucket against one that counts tokens, on a clock of the test's."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from prompts_store.budgets.bucket import MINUTE_US, Bucket

LIMITS = st.integers(1, 10**7)
STEPS = st.lists(st.tuples(st.integers(0, 2 * MINUTE_US), st.integers(1, 10**7)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(LIMITS, STEPS)
def test_it_admits_what_a_counted_bucket_admits(limit: int, steps: list[tuple[int, int]]) -> None:
    bucket, now, full_at = Bucket(limit), 0, 0
    level, rate = Fraction(limit), Fraction(limit, MINUTE_US)
    for passed, amount in steps:
        now += passed
        level = min(Fraction(limit), level + passed * rate)
        free = bucket.free(full_at, now)
        # Moments are whole microseconds, rounded so that never more is admitted.
        assert level - (1 + rate) * (1 + len(steps)) <= free <= level
        if amount <= free:
            full_at = bucket.take(full_at, now, amount)
            level -= amount


@settings(max_examples=200, deadline=None)
@given(LIMITS, STEPS)
def test_no_span_of_time_admits_more_than_the_bucket_and_what_refills(
    limit: int, steps: list[tuple[int, int]]
) -> None:
    bucket, now, full_at = Bucket(limit), 0, 0
    taken: list[tuple[int, int]] = []
    for passed, amount in steps:
        now += passed
        some = min(amount, bucket.free(full_at, now))
        full_at = bucket.take(full_at, now, some)
        taken.append((now, some))
    for begin, (since, _) in enumerate(taken):
        sums = 0
        for until, some in taken[begin:]:
            sums += some
            assert sums <= limit + Fraction(limit * (until - since), MINUTE_US)


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.integers(0, 3 * MINUTE_US), st.data())
def test_the_time_to_wait_is_exact(limit: int, spent_us: int, data: st.DataObject) -> None:
    bucket, now = Bucket(limit), 10**15
    full_at, amount = now + spent_us, data.draw(st.integers(1, limit))
    wait = bucket.wait(full_at, now, amount)
    assert bucket.free(full_at, now + wait) >= amount
    assert wait == 0 or bucket.free(full_at, now + wait - 1) < amount


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.integers(1, 10**7), st.integers(0, MINUTE_US))
def test_what_comes_back_wins_nothing(limit: int, amount: int, spent_us: int) -> None:
    bucket, now = Bucket(limit), 10**15
    before = now + spent_us
    after = bucket.give(bucket.take(before, now, amount), amount)
    assert before <= after <= before + 1


def test_nothing_is_free_of_a_limit_of_nothing() -> None:
    assert Bucket(0).free(0, 10**15) == 0
    assert Bucket(0).take(0, 5, 3) > 5
