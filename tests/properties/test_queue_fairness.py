"""The fair queue against its promises; first come first served is the control."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.engine.requests import Priority
from chorus_server.engine.scheduler.fair_queue import BATCH_SHARE, FairQueue

CLASSES: tuple[Priority, ...] = ("interactive", "batch")
TENANTS = {"a": 1.0, "b": 1.0, "c": 2.5}

requests = st.lists(
    st.tuples(st.sampled_from(sorted(TENANTS)), st.sampled_from(CLASSES), st.integers(1, 50)),
    min_size=1,
    max_size=80,
)


def fill(queue: FairQueue[int], work: list[tuple[str, Priority, int]], first: int = 0) -> None:
    for number, (tenant, priority, cost) in enumerate(work, start=first):
        queue.push(
            number,
            key=str(number),
            tenant=tenant,
            weight=TENANTS[tenant],
            priority=priority,
            cost=float(cost),
            number=number,
        )


def worst_gap(order: list[int], work: list[tuple[str, Priority, int]]) -> float:
    """The largest difference of normalised service between two tenants over any span in which both wait."""
    left = defaultdict(int)
    for tenant, _, _ in work:
        left[tenant] += 1
    served: dict[str, float] = dict.fromkeys(left, 0.0)
    worst = 0.0
    spans = {(x, y): (0.0, 0.0) for x in left for y in left if x < y}
    for number in order:
        tenant, _, cost = work[number]
        served[tenant] += cost / TENANTS[tenant]
        left[tenant] -= 1
        for (x, y), (low, high) in spans.items():
            if left[x] and left[y]:
                gap = served[x] - served[y]
                worst = max(worst, gap - low, high - gap)
                spans[(x, y)] = (min(low, gap), max(high, gap))
    return worst


@settings(max_examples=200, deadline=None, derandomize=True)
@given(requests)
def test_two_waiting_tenants_are_served_within_twice_the_largest_request(
    work: list[tuple[str, Priority, int]],
) -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, work)
    planned = [waiting.item for waiting in queue.in_order()]
    order = []
    while (head := queue.head()) is not None:
        order.append(queue.take(head.key))
    assert order == planned, "the order foretold is the order served"
    assert sorted(order) == list(range(len(work)))
    largest = max(cost / TENANTS[tenant] for tenant, _, cost in work)
    assert worst_gap(order, work) <= 2 * largest + 1e-6


def test_first_come_first_served_breaks_that_promise() -> None:
    work = [("a", "interactive", 10)] * 30 + [("b", "interactive", 10)] * 30
    assert worst_gap(list(range(60)), work) > 20


@settings(max_examples=200, deadline=None, derandomize=True)
@given(requests)
def test_a_class_is_served_in_order_and_batch_gets_its_share(work: list[tuple[str, Priority, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, work)
    left = Counter((tenant, priority) for tenant, priority, _ in work)
    served: dict[tuple[str, Priority], list[int]] = defaultdict(list)
    while (head := queue.head()) is not None:
        queue.take(head.key)
        tenant, priority, _ = work[head.item]
        served[(tenant, priority)].append(head.item)
        left[(tenant, priority)] -= 1
        if left[(tenant, "interactive")] and left[(tenant, "batch")]:
            first, rest = (
                sum(work[number][2] for number in served[(tenant, name)]) for name in ("interactive", "batch")
            )
            largest = max(cost for _, _, cost in work)
            assert first / (1 - BATCH_SHARE) - rest / BATCH_SHARE <= 2 * largest / BATCH_SHARE
            assert rest <= BATCH_SHARE * (first + rest) + 2 * largest, "interactive requests go first"
    assert all(numbers == sorted(numbers) for numbers in served.values())


def place_of_an_interactive_request(priority: Priority) -> int:
    """How many of 1,000 requests that were there before it are served before it."""
    queue: FairQueue[int] = FairQueue()
    fill(queue, [("a", priority, 10)] * 1000)
    for number in range(20):
        queue.take(str(number))
    fill(queue, [("a", "interactive", 10)], first=1000)
    return [waiting.item for waiting in queue.in_order()].index(1000)


def test_an_interactive_request_goes_before_a_backlog_of_batch() -> None:
    assert place_of_an_interactive_request("batch") <= 1
    assert place_of_an_interactive_request("interactive") == 980, "without classes it waits for all"


def test_batch_is_served_while_interactive_requests_never_end() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, [("a", "batch", 10)] * 20)
    taken = []
    for number in range(20, 220):
        fill(queue, [("a", "interactive", 10)], first=number)
        head = queue.head()
        assert head is not None
        taken.append(queue.take(head.key))
    batch = [place for place, number in enumerate(taken) if number < 20]
    assert len(batch) >= 18
    assert max(after - before for before, after in pairwise(batch)) <= 11


def test_a_tenant_gains_nothing_from_calling_its_work_batch() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, [("a", "batch", 10)] * 40 + [("b", "interactive", 10)] * 40)
    owners = ["a" if waiting.item < 40 else "b" for waiting in queue.in_order()]
    assert owners[:40].count("a") == 20, "classes count within a tenant only"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(requests, st.data())
def test_any_mix_of_operations_keeps_the_queue_whole(
    work: list[tuple[str, Priority, int]], data: st.DataObject
) -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, work)
    inside = set(range(len(work)))
    for _ in range(len(work) * 2):
        if not inside:
            break
        number = data.draw(st.sampled_from(sorted(inside)))
        match data.draw(st.sampled_from(("take", "remove", "again"))):
            case "take":
                before = queue.virtual_time
                assert queue.take(str(number)) == number
                assert queue.virtual_time >= before or not queue
                inside.remove(number)
            case "remove":
                assert queue.remove(str(number)) == number
                inside.remove(number)
            case _:
                queue.remove(str(number))
                fill_one(queue, number, work[number])
        assert len(queue) == len(inside)
        assert {waiting.item for waiting in queue.in_order()} == inside
        tags = [waiting.start for waiting in queue.in_order()]
        assert tags == sorted(tags)


def fill_one(queue: FairQueue[int], number: int, request: tuple[str, Priority, int]) -> None:
    tenant, priority, cost = request
    queue.push(
        number,
        key=str(number),
        tenant=tenant,
        weight=TENANTS[tenant],
        priority=priority,
        cost=float(cost),
        number=number,
    )


def test_a_tenant_that_was_away_saves_up_nothing() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, [("a", "interactive", 10)] * 40)
    for number in range(20):
        queue.take(str(number))
    fill(queue, [("b", "interactive", 10)] * 20, first=40)
    owners = ["a" if waiting.item < 40 else "b" for waiting in queue.in_order()]
    assert owners[:10].count("b") in (5, 6), "from now on they take turns"


def test_what_does_not_wait_cannot_be_taken() -> None:
    queue: FairQueue[int] = FairQueue()
    with pytest.raises(KeyError):
        queue.take("nobody")
