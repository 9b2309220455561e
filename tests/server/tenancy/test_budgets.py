"""Budgets of several processes on one database: how much is admitted, and what goes wrong. No time passes but
the test's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_server.changes.memory import STALE_SECONDS
from chorus_server.tenancy.principal import Principal
from prompts_store.budgets.leases import LEASE_SECONDS
from prompts_store.errors import StoreError
from tests.postgres_server import PostgresServer
from tests.server.tenancy.fleet import Fleet, fleet, limited, play

SECONDS = 40
MOST, LEAST = 1.1, 0.9


async def admitted(crowd: Fleet, caller: Principal, a_second: list[int], seconds: int = SECONDS) -> int:
    """How many of so many requests a second at each replica."""
    count, begin = 0, crowd.seconds
    for second in range(seconds):
        arrivals = [place for place, many in enumerate(a_second) for _ in range(many)]
        random.Random(second).shuffle(arrivals)
        for n, place in enumerate(arrivals):
            crowd.seconds = begin + second + n / len(arrivals)
            replica = crowd.replicas[place]
            if taken := await replica.take(caller):
                count += 1
                replica.settle(taken)
        crowd.seconds = begin + second
        await crowd.tick()
    return count


def one_bucket(limit: int, a_second: int, seconds: int = SECONDS) -> float:
    """What one bucket for all would admit."""
    return min(limit + limit * seconds / 60, a_second * seconds)


SHAPES: dict[str, Callable[[int], list[int]]] = {
    "even": lambda count: [60 // count] * count,
    "one-sided": lambda count: [60] + [0] * (count - 1),
    "mostly one": lambda count: [60] + [1] * (count - 1),
}


@pytest.mark.parametrize("limit", [30, 900])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_together_they_admit_what_one_would(tmp_path: Path, count: int, shape: str, limit: int) -> None:
    load = SHAPES[shape](count)
    ideal = one_bucket(limit, sum(load))

    async def scenario() -> None:
        with fleet(tmp_path, count) as crowd:
            caller = limited({"per_minute": {"requests": limit}})
            share = await admitted(crowd, caller, load) / ideal
            assert LEAST <= share <= MOST
            for replica in crowd.replicas:
                assert replica.asked <= 60 + SECONDS, "a question a second, after the first"

    play(scenario)


def test_without_leases_they_admit_too_much(tmp_path: Path) -> None:
    """The control."""

    async def scenario() -> None:
        with fleet(tmp_path, 2, apart=True) as crowd:
            caller = limited({"per_minute": {"requests": 900}})
            share = await admitted(crowd, caller, SHAPES["even"](2)) / one_bucket(900, 60)
            assert share > MOST

    play(scenario)


@pytest.mark.parametrize("shape", ["even", "mostly one"])
def test_on_postgresql(tmp_path: Path, postgres_server: PostgresServer, shape: str) -> None:
    async def scenario() -> None:
        with fleet(tmp_path, 3, url=postgres_server.emptied()) as crowd:
            caller = limited({"per_minute": {"requests": 900, "tokens": 10**6}})
            share = await admitted(crowd, caller, SHAPES[shape](3)) / one_bucket(900, 60)
            assert LEAST <= share <= MOST

    play(scenario)


def test_a_key_and_a_tenant_share_tokens(tmp_path: Path) -> None:
    """Tokens are settled: each item reserves 10 and uses 6."""

    async def scenario() -> None:
        with fleet(tmp_path, 2) as crowd:
            caller = limited({"per_minute": {"tokens": 6000}}, {"per_minute": {"tokens": 3000}})
            count = 0
            for _ in range(SECONDS):
                for replica in crowd.replicas:
                    for _ in range(20):
                        if taken := await replica.take(caller):
                            count += 1
                            replica.settle(taken, tokens_out=2)
                await crowd.tick()
            assert LEAST <= 6 * count / one_bucket(3000, 10**6) <= MOST

    play(scenario)


def test_a_month_is_shared_exactly_and_lasts(tmp_path: Path) -> None:
    caller = limited({"per_month": {"requests": {"soft": 80, "hard": 100}}})

    async def scenario() -> None:
        with fleet(tmp_path, 3) as crowd:
            assert 99 <= await admitted(crowd, caller, [3, 3, 3], 20) <= 100
            for each in crowd.replicas:
                each.budgets.close()
        with fleet(tmp_path, 2) as crowd:  # all have started anew
            assert await admitted(crowd, caller, [5, 5], 5) <= 1
            (told,) = crowd.replicas[0].budgets.limits_of(caller)
            assert told.line.used(0.0) == 100 and told.line.warns
            crowd.seconds += 32 * 86_400
            assert 99 <= await admitted(crowd, caller, [10, 10], 10) <= 100

    play(scenario)


def test_places_are_shared_and_come_back(tmp_path: Path) -> None:
    caller = limited({"in_flight": {"requests": 4}, "queued": {"requests": 3}})

    async def scenario() -> None:
        with fleet(tmp_path, 2) as crowd:
            one, two = crowd.replicas
            first = [await one.take(caller) for _ in range(2)]
            assert all(first) and await two.take(caller) and await two.take(caller) is None, "three wait"
            begun = [each.origin.request_id for each in first[0] or ()]
            one.budgets.started(begun)
            await crowd.tick()
            await crowd.tick()
            assert await two.take(caller) and await two.take(caller) is None, "four are in flight"
            for taken in first:
                one.settle(taken or ())
            await crowd.tick()
            await crowd.tick()
            await crowd.tick()
            assert await two.take(caller) and await two.take(caller) is None, "three wait"

    play(scenario)


def test_one_that_dies_leaves_its_places_and_its_month(tmp_path: Path) -> None:
    caller = limited({"in_flight": {"requests": 4}, "per_month": {"requests": {"hard": 1000}}})

    async def scenario() -> None:
        with fleet(tmp_path, 2) as crowd:
            one, two = crowd.replicas
            assert await one.take(caller, 4)
            await crowd.tick()
            await crowd.tick()
            assert await two.take(caller) is None
            crowd.replicas.remove(one)  # kill -9
            await crowd.tick(LEASE_SECONDS - 1)
            assert await two.take(caller) is None, "the control: its lease still counts"
            await crowd.tick(2)
            assert await two.take(caller, 4)
            told = {each.line.name: each.line for each in two.budgets.limits_of(caller)}
            assert told["per_month.requests"].used(0.0) == 8

    play(scenario)


def test_a_clock_that_is_off_takes_no_more(tmp_path: Path) -> None:
    """The database's clock counts, and between two questions only how much time passes."""

    async def scenario() -> None:
        with fleet(tmp_path, 2) as crowd:
            crowd.replicas[1].ahead_seconds = 3600
            caller = limited({"per_minute": {"requests": 900}})
            share = await admitted(crowd, caller, [30, 30]) / one_bucket(900, 60)
            assert LEAST <= share <= MOST

    play(scenario)


def test_while_the_database_is_away(tmp_path: Path) -> None:
    """What is leased and a fair part of what was free serves for a while; then nothing is known any more."""
    caller = limited({"per_minute": {"requests": 600}})

    async def scenario() -> None:
        with fleet(tmp_path, 2) as crowd:
            for _ in range(2):  # from then on each knows of the other
                for replica in crowd.replicas:
                    assert await replica.take(caller)
                await crowd.tick()
            for replica in crowd.replicas:
                replica.away = True
            away = await admitted(crowd, caller, [60, 60], int(STALE_SECONDS) - 2)
            assert LEAST / 2 <= away / one_bucket(600, 120, int(STALE_SECONDS) - 2) <= MOST
            asked = crowd.replicas[0].asked
            crowd.seconds += 3
            with pytest.raises(StoreError, match="does not say what may still be used"):
                await crowd.replicas[0].take(caller)
            for replica in crowd.replicas:
                replica.away = False
            await crowd.tick()
            assert crowd.replicas[0].asked > asked
            # What was spent meanwhile is counted, and then it is as before.
            (told,) = crowd.replicas[0].budgets.limits_of(caller)
            assert told.remaining < 300
            crowd.seconds += 60
            assert await crowd.replicas[0].take(caller, 300)

    play(scenario)


def test_what_is_leased_ahead_is_not_left_beside_the_whole(tmp_path: Path) -> None:
    """The bucket fills again while this process keeps a part that it does not spend."""

    async def scenario() -> None:
        with fleet(tmp_path, 1) as crowd:
            caller = limited({"per_minute": {"requests": 900}})
            assert await crowd.replicas[0].take(caller)
            crowd.seconds += 30
            (told,) = crowd.replicas[0].budgets.limits_of(caller)
            assert (told.remaining, told.full_in) == (900, 0)

    play(scenario)


def test_nothing_is_known_of_somebody_new_while_it_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        with fleet(tmp_path, 1) as crowd:
            crowd.replicas[0].away = True
            with pytest.raises(StoreError):
                await crowd.replicas[0].take(limited({"per_minute": {"requests": 600}}))

    play(scenario)


def test_a_batch_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    caller = limited({"per_minute": {"requests": 50, "tokens": 100_000}})

    async def scenario() -> None:
        with fleet(tmp_path, 1) as crowd:
            (one,) = crowd.replicas
            assert await one.take(caller, 30)
            assert await one.take(caller, 30) is None
            assert await one.take(caller, 51) is None
            tokens = one.budgets.limits_of(caller)[1]
            assert tokens.line.name == "per_minute.tokens" and tokens.line.used(crowd.seconds) == 300
            crowd.seconds += 1.1
            assert await one.take(caller, 20)
            assert await one.take(caller, 1) is None

    play(scenario)


def test_who_uses_nothing_costs_nothing(tmp_path: Path) -> None:
    """Idle: no question, and after a while no memory either."""
    caller = limited({"per_minute": {"requests": 600}, "in_flight": {"requests": 8}})

    async def scenario() -> None:
        with fleet(tmp_path, 1) as crowd:
            (one,) = crowd.replicas
            one.settle(await one.take(caller) or ())
            for _ in range(5):
                await crowd.tick()
            asked = one.asked
            for _ in range(70):
                await crowd.tick()
            assert one.asked == asked and not one.budgets._subjects and not one.budgets._held

    play(scenario)


def test_a_busy_tenant_waits_for_no_question(tmp_path: Path) -> None:
    """Once it is known what a second takes, it is leased ahead."""
    caller = limited({"per_minute": {"requests": 60_000}})

    async def scenario() -> None:
        with fleet(tmp_path, 1) as crowd:
            (one,) = crowd.replicas
            await admitted(crowd, caller, [50], 3)
            asked = one.asked
            assert await admitted(crowd, caller, [50], 10) == 500
            assert one.asked - asked <= 10

    play(scenario)
