"""Who comes in without a key, until when, and what the keys of files are good for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from chorus_server.tenancy.principal import ALL_SCOPES, Principal, Scope
from prompts_store.errors import StoreError
from prompts_store.tenants.key_format import make_key
from tests.server.tenancy.house import FILE_KEY, House, run


def test_an_open_server_closes_with_the_first_key(house: House) -> None:
    async def scenario() -> None:
        await house.reader.read()
        caller = await house.who(None, Scope.OPERATOR)
        assert caller.keyless and caller.scopes == ALL_SCOPES and caller.tenant == "default"
        assert await house.code("Bearer whatever-a-client-always-sends") == "let in"
        assert await house.code(f"Bearer {make_key()}") == "unauthenticated"  # of ours, and not good
        key, header = house.key()
        await house.reader.read()
        assert await house.code(None) == await house.code("Bearer whatever") == "unauthenticated"
        house.store.revoke_key("default", key)
        await house.reader.read()
        assert await house.code(None) == "let in"
        assert await house.code(header) == "unauthenticated"  # not even where nobody needs a key

    run(scenario)


def test_an_expired_key_opens_nothing(house: House) -> None:
    async def scenario() -> None:
        _, header = house.key(expires_at=house.now + timedelta(minutes=1))
        house.now += timedelta(minutes=2)
        house.store._clock = lambda: house.now
        assert await house.code(header) == await house.code(None) == "unauthenticated"

    run(scenario)


def test_where_others_reach_the_server_nobody_comes_in_without_a_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path, keyless=False)
        assert await house.code(None) == "unauthenticated" and house.asked == 0
        house.store.close()

    run(scenario)


def test_a_scrape_token_reads_the_metrics_while_the_database_is_silent(tmp_path: Path) -> None:
    async def scenario() -> None:
        scrape = Principal("default", "scrape", frozenset({Scope.METRICS}))
        house = House(tmp_path, ring={"t" * 32: scrape})
        house.fails = True
        assert await house.who("Bearer " + "t" * 32, Scope.METRICS) is scrape
        assert await house.code("Bearer " + "x" * 32, Scope.METRICS) == "unauthenticated"
        with pytest.raises(StoreError):
            await house.code(None)
        house.store.close()

    run(scenario)


def test_an_operators_file_key_can_resume_its_own_tenant(tmp_path: Path) -> None:
    ring = {
        FILE_KEY: Principal("default", "operator", ALL_SCOPES),
        "k" * 32: Principal("default", "key", frozenset({Scope.INFER})),
    }

    async def scenario() -> None:
        house = House(tmp_path, ring=ring)
        house.store.update_tenant("default", weight=2.0)
        assert (await house.who("Bearer " + "k" * 32)).weight == 2.0
        house.store.suspend_tenant("default")
        house.callers.forget()
        assert await house.code("Bearer " + "k" * 32) == "tenant_suspended"
        assert await house.code(f"Bearer {FILE_KEY}", Scope.OPERATOR) == "let in"
        assert await house.code(None) == "unauthenticated"
        house.store.close()

    run(scenario)
