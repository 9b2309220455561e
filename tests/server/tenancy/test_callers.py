"""Who asks: what is remembered of a key costs no query, and everything that ends a key is seen.

The store is a real one in a file, whose calls are counted; the clocks are the test's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from chorus_server.changes.memory import SEEN_SECONDS, STALE_SECONDS
from chorus_server.tenancy import callers as module
from chorus_server.tenancy.guesses import MOST_A_SECOND
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from prompts_store.tenants.key_format import make_key
from tests.server.tenancy.house import House, run


def test_a_key_that_was_seen_costs_no_query(house: House) -> None:
    async def scenario() -> None:
        house.store.create_tenant("acme", weight=3.0)
        key, header = house.key("acme", "ci", scopes=["infer", "admin"], tasks=["s*"])
        assert house.callers.known(header, Scope.INFER) is None and house.asked == 0
        caller = await house.who(header)
        assert caller == Principal(
            "acme", "ci", frozenset({Scope.INFER, Scope.ADMIN}), 3.0, key=key, tasks=("s*",)
        )
        assert house.asked == 1
        for _ in range(5):
            assert house.callers.known(header, Scope.INFER) is caller
        assert await house.who(header, Scope.ADMIN) is caller and house.asked == 1
        assert await house.code(header, Scope.TUNE) == "forbidden"

    run(scenario)


def test_a_memory_lasts_as_long_as_the_feed_is_read(house: House) -> None:
    async def scenario() -> None:
        _, header = house.key()
        await house.reader.read()
        await house.who(header)
        for _ in range(20):
            house.clock.now += 0.9 * SEEN_SECONDS
            await house.reader.read()
            assert house.callers.known(header, Scope.INFER) is not None
        assert house.asked == 1
        house.clock.now += 1.1 * SEEN_SECONDS  # control: it is not read any more
        assert house.callers.known(header, Scope.INFER) is None
        await house.who(header)
        assert house.asked == 2

    run(scenario)


def test_many_at_once_ask_once(house: House) -> None:
    async def scenario() -> None:
        _, header = house.key()
        found = await asyncio.gather(*(house.who(header) for _ in range(50)))
        assert house.asked == 1 and len(set(found)) == 1

    run(scenario)


def test_whoever_leaves_takes_no_answer_from_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        _, header = house.key()
        gate, begun, honest = threading.Event(), threading.Event(), house.store.find_key

        def slow(public: str) -> Any:
            begun.set()
            assert gate.wait(300)
            return honest(public)

        monkeypatch.setattr(house.store, "find_key", slow)
        first, second = (asyncio.ensure_future(house.who(header)) for _ in range(2))
        await asyncio.to_thread(begun.wait, 300)
        first.cancel()
        gate.set()
        assert (await second).name == "k"
        assert first.cancelled() and house.asked == 1

    run(scenario)


def test_nobody_waits_for_ever_for_a_store_that_hangs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.02)

    async def scenario() -> None:
        _, header = house.key()
        gate, honest = threading.Event(), house.store.find_key
        monkeypatch.setattr(house.store, "find_key", lambda public: (gate.wait(300), honest(public))[1])
        for _ in range(2):
            with pytest.raises(StoreError, match="does not say who asks"):
                await house.who(header)
        gate.set()
        monkeypatch.setattr(module, "ANSWER_SECONDS", 300.0)
        assert await house.code(header) == "let in" and house.asked == 1

    run(scenario)


MALFORMED = {
    "short": "Bearer ck_short",
    "empty": "Bearer ",
    "basic": "Basic x",
    "mistyped": "Bearer " + make_key()[:-1] + "-",
    "long": "Bearer " + "x" * 513,
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_key_is_told_without_asking(house: House, header: str) -> None:
    async def scenario() -> None:
        house.key()
        await house.code(None)  # now it is known that a key is needed
        house.asked = 0
        assert await house.code(header) == "unauthenticated" and house.asked == 0

    run(scenario)


def test_unknown_keys_are_remembered_as_unknown_and_bounded_by_address(house: House) -> None:
    async def scenario() -> None:
        house.key()
        same = f"Bearer {make_key()}"
        assert {await house.code(same) for _ in range(50)} == {"unauthenticated"} and house.asked == 1
        house.clock.now += 2.0
        house.asked = 0
        codes = [await house.code(f"Bearer {make_key()}") for _ in range(100)]
        assert codes == ["unauthenticated"] * MOST_A_SECOND + ["too_many_unknown_keys"] * (
            100 - MOST_A_SECOND
        )
        assert house.asked == MOST_A_SECOND
        assert await house.code(f"Bearer {make_key()}", address="192.0.2.2") == "unauthenticated"
        counts = house.metrics.key_lookups._made.collect()[0].samples
        looked_up = {
            sample.labels["result"]: sample.value for sample in counts if sample.name.endswith("_total")
        }
        assert looked_up == {"unknown": 12.0, "refused": 90.0}
        house.clock.now += 1.01
        assert await house.code(f"Bearer {make_key()}") == "unauthenticated"

    run(scenario)


def test_control_without_the_bound_every_guess_is_a_query(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.callers._guesses, "begin", lambda *_: None)

    async def scenario() -> None:
        house.key()
        for _ in range(100):
            await house.code(f"Bearer {make_key()}")
        assert house.asked >= 100

    run(scenario)


def test_keys_that_are_there_do_not_count_as_guesses(house: House) -> None:
    async def scenario() -> None:
        headers = [house.key(name=f"k{n}")[1] for n in range(3 * MOST_A_SECOND)]
        assert {await house.code(header) for header in headers} == {"let in"}

    run(scenario)


def test_who_guesses_keeps_no_key_from_being_looked_up_again(house: House) -> None:
    async def scenario() -> None:
        _, header = house.key()
        await house.who(header)
        for _ in range(2 * MOST_A_SECOND):
            await house.code(f"Bearer {make_key()}")
        house.callers.forget()
        assert await house.code(header) == "let in"
        assert await house.code(house.key(name="new")[1]) == "too_many_unknown_keys"  # control

    run(scenario)


def test_one_network_of_ipv6_is_one_address(house: House) -> None:
    async def scenario() -> None:
        house.key()
        codes = {await house.code(f"Bearer {make_key()}", address=f"2001:db8::{n:x}") for n in range(30)}
        assert "too_many_unknown_keys" in codes
        assert await house.code(f"Bearer {make_key()}", address="2001:db8:0:1::1") == "unauthenticated"

    run(scenario)


def test_an_expiry_needs_nobody_to_tell_it(house: House) -> None:
    async def scenario() -> None:
        _, header = house.key(expires_at=house.now + timedelta(minutes=1))
        assert await house.code(header) == "let in"
        house.now += timedelta(seconds=59)
        assert house.callers.known(header, Scope.INFER) is not None
        house.now += timedelta(seconds=1)
        house.asked = 0
        assert await house.code(header) == "unauthenticated" and house.asked == 0

    run(scenario)


CHANGES: dict[str, tuple[Callable[[PromptStore, str], object], str]] = {
    "revoked": (lambda store, key: store.revoke_key("acme", key), "unauthenticated"),
    "suspended": (lambda store, _: store.suspend_tenant("acme"), "tenant_suspended"),
    "deleted": (lambda store, _: store.delete_tenant("acme", grace_seconds=9), "unauthenticated"),
    "scopes": (lambda store, key: store.update_key("acme", key, scopes=["tune"]), "forbidden"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_with_the_next_reading(house: House, change: str) -> None:
    async def scenario() -> None:
        house.store.create_tenant("acme")
        key, header = house.key("acme")
        await house.reader.read()
        assert await house.code(header) == "let in"
        make, code = CHANGES[change]
        make(house.store, key)
        assert await house.code(header) == "let in"  # control: nobody has read the feed since
        await house.reader.read()
        assert await house.code(header) == code

    run(scenario)


def test_a_changed_weight_and_a_resumed_tenant_are_seen(house: House) -> None:
    async def scenario() -> None:
        house.store.create_tenant("acme")
        _, header = house.key("acme")
        await house.reader.read()
        house.store.suspend_tenant("acme")
        await house.reader.read()
        assert await house.code(header) == "tenant_suspended"
        house.store.resume_tenant("acme")
        house.store.update_tenant("acme", weight=7.0)
        await house.reader.read()
        assert (await house.who(header)).weight == 7.0

    run(scenario)


def test_a_key_that_was_unknown_is_known_once_it_is_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        house.key(name="other")
        secret = make_key()
        await house.reader.read()
        assert await house.code(f"Bearer {secret}") == "unauthenticated"
        monkeypatch.setattr("prompts_store.tenants.keys.make_key", lambda: secret)
        house.key()
        assert await house.code(f"Bearer {secret}") == "unauthenticated"
        await house.reader.read()
        assert await house.code(f"Bearer {secret}") == "let in"

    run(scenario)


def test_while_the_store_is_silent_what_was_known_serves_and_then_nothing(house: House) -> None:
    async def scenario() -> None:
        _, header = house.key()
        await house.reader.read()
        await house.who(header)
        house.fails = True
        house.clock.now += STALE_SECONDS - 0.1
        assert not await house.reader.read()
        assert await house.code(header) == "let in"
        with pytest.raises(StoreError):
            await house.code(house.key(name="new")[1])  # nothing is known of it
        house.clock.now += 0.2
        with pytest.raises(StoreError):
            await house.code(header)
        house.fails = False
        assert await house.code(header) == "let in"

    run(scenario)


def test_last_use_is_written_together_and_to_the_minute(house: House) -> None:
    async def scenario() -> None:
        keys = [house.key(name=f"k{n}") for n in range(3)]
        for _ in range(4):
            for _, header in keys[:2]:
                await house.who(header)
        assert house.store.get_key("default", keys[0][0]).last_used_at is None
        await house.last_use.write()
        minute = house.now.replace(second=0, microsecond=0)
        assert [house.store.get_key("default", key).last_used_at for key, _ in keys] == [minute, minute, None]
        await house.who(keys[2][1])
        house.fails = True
        await house.last_use.write()  # the database is away: kept
        house.fails = False
        house.last_use.write_rest()
        assert house.store.get_key("default", keys[2][0]).last_used_at == minute

    run(scenario)


def test_what_is_remembered_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.callers._keys, "_most", 3)

    async def scenario() -> None:
        headers = [house.key(name=f"k{n}")[1] for n in range(5)]
        for header in headers:
            await house.who(header)
        assert len(house.callers._keys) == 3
        known = [house.callers.known(header, Scope.INFER) is not None for header in headers]
        assert known == [False, False, True, True, True]

    run(scenario)
    assert module.MOST_KEYS >= 100_000
