"""The fair queue against its promises; first come first served is the control."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.engine.scheduler.fair_queue import FairQueue

TENANTS = {"a": 1.0, "b": 1.0, "c": 2.5}

requests = st.lists(
    st.tuples(st.sampled_from(sorted(TENANTS)), st.integers(0, 2), st.integers(1, 50)),
    min_size=1,
    max_size=80,
)


def fill(queue: FairQueue[int], work: list[tuple[str, int, int]], first: int = 0) -> None:
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


def worst_gap(order: list[int], work: list[tuple[str, int, int]]) -> float:
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
    work: list[tuple[str, int, int]],
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
    work = [("a", 0, 10)] * 30 + [("b", 0, 10)] * 30
    assert worst_gap(list(range(60)), work) > 20


@settings(max_examples=100, deadline=None, derandomize=True)
@given(requests)
def test_within_a_tenant_priority_then_first_come(work: list[tuple[str, int, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, work)
    by_tenant: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for waiting in queue.in_order():
        by_tenant[waiting.tenant].append((-waiting.priority, waiting.number))
    assert all(places == sorted(places) for places in by_tenant.values())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(requests, st.data())
def test_any_mix_of_operations_keeps_the_queue_whole(
    work: list[tuple[str, int, int]], data: st.DataObject
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


def fill_one(queue: FairQueue[int], number: int, request: tuple[str, int, int]) -> None:
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
    fill(queue, [("a", 0, 10)] * 40)
    for number in range(20):
        queue.take(str(number))
    fill(queue, [("b", 0, 10)] * 20, first=40)
    owners = ["a" if waiting.item < 40 else "b" for waiting in queue.in_order()]
    assert owners[:10].count("b") in (5, 6), "from now on they take turns"


def test_what_does_not_wait_cannot_be_taken() -> None:
    queue: FairQueue[int] = FairQueue()
    with pytest.raises(KeyError):
        queue.take("nobody")
