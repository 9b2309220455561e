"""A session stands for its key, as that is now, and for nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chorus_server.errors import QuotaExceededError, UnauthenticatedError
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import ALL_SCOPES, Principal, Scope
from chorus_server.tenancy.sessions import Sessions
from prompts_store.errors import StoreError
from tests.server.tenancy.house import FILE_KEY, HERE, House, run

FILE = {FILE_KEY: Principal("default", "operator", ALL_SCOPES)}


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[House]:
    """Callers that know a key from a file."""
    made = House(tmp_path, keyless=False, ring=FILE)
    yield made
    made.store.close()


def of(house: House) -> Sessions:
    async def save(function, *args, **kwargs):  # type: ignore[no-untyped-def]
        return function(*args, **kwargs)

    return Sessions(house.store, house.callers, house.ask, save, lambda: house.now, house.clock)


def test_a_session_is_its_key_until_that_is_revoked(filed: House) -> None:
    async def scenario() -> None:
        id, header = filed.key("default", "web", scopes=["infer", "tune"], tasks=["s*"])
        sessions = of(filed)
        token = await sessions.open(header.removeprefix("Bearer "), HERE)
        caller = await sessions.authorise(token, Scope.TUNE, HERE)
        assert caller == await filed.who(header, Scope.TUNE)
        assert caller.key == id and caller.tasks == ("s*",)
        await filed.reader.read()
        filed.store.revoke_key("default", id)
        await filed.reader.read()
        with pytest.raises(UnauthenticatedError):
            await sessions.authorise(token, None, HERE)

    run(scenario)


def test_a_key_from_a_file_has_sessions_until_the_file_has_another(filed: House) -> None:
    async def scenario() -> None:
        sessions = of(filed)
        token = await sessions.open(FILE_KEY, HERE)
        assert (await sessions.authorise(token, Scope.OPERATOR, HERE)).name == "operator"
        other = {"p" * 32: Principal("default", "operator", ALL_SCOPES)}
        filed.callers.ring = KeyRing(other, filed.callers.ring.anonymous)
        with pytest.raises(UnauthenticatedError):
            await sessions.authorise(token, None, HERE)

    run(scenario)


def test_a_session_ends_when_its_time_or_its_owner_says_so(filed: House) -> None:
    async def scenario() -> None:
        sessions = of(filed)
        first = await sessions.open(FILE_KEY, HERE)
        second = await sessions.open(FILE_KEY, HERE)
        assert await sessions.authorise(first, None, HERE)
        await sessions.end(first)
        with pytest.raises(UnauthenticatedError):
            await sessions.authorise(first, None, HERE)
        assert await sessions.authorise(second, None, HERE)
        filed.now += timedelta(hours=12, seconds=1)  # whatever is remembered
        with pytest.raises(UnauthenticatedError):
            await sessions.authorise(second, None, HERE)

    run(scenario)


@pytest.mark.parametrize("token", ["", "cs_", "cs_" + "x" * 42, "cs_" + "x" * 43, FILE_KEY])
def test_what_is_no_token_stands_for_nobody(filed: House, token: str) -> None:
    async def scenario() -> None:
        with pytest.raises(UnauthenticatedError):
            await of(filed).authorise(token, None, HERE)
        await of(filed).end(token)

    run(scenario)


def test_a_key_that_is_not_good_opens_no_session(filed: House) -> None:
    async def scenario() -> None:
        with pytest.raises(UnauthenticatedError):
            await of(filed).open("q" * 32, HERE)

    run(scenario)


def test_a_server_without_keys_opens_no_session(tmp_path: Path) -> None:
    house = House(tmp_path, keyless=True)

    async def scenario() -> None:
        assert (await house.who("Bearer whatever")).keyless
        with pytest.raises(UnauthenticatedError):
            await of(house).open("whatever", HERE)

    run(scenario)
    house.store.close()


def test_a_session_is_looked_up_once_a_second_and_ends_in_every_process(filed: House) -> None:
    async def scenario() -> None:
        here, elsewhere = of(filed), of(filed)
        token = await here.open(FILE_KEY, HERE)
        await here.authorise(token, None, HERE)
        before = filed.asked
        for _ in range(50):
            await here.authorise(token, None, HERE)
        assert filed.asked == before
        await elsewhere.end(token)
        filed.clock.now += 1.0
        with pytest.raises(UnauthenticatedError):
            await here.authorise(token, None, HERE)

    run(scenario)


def test_sessions_live_on_while_the_store_is_silent_as_keys_do(filed: House) -> None:
    async def scenario() -> None:
        sessions = of(filed)
        token, other = [await sessions.open(FILE_KEY, HERE) for _ in range(2)]
        assert await sessions.authorise(token, None, HERE)
        filed.clock.now += 5.0
        filed.fails = True
        assert await sessions.authorise(token, None, HERE)
        with pytest.raises(StoreError):  # the control: of this one nothing is known
            await sessions.authorise(other, None, HERE)

    run(scenario)


def test_tokens_cannot_be_guessed_at_leisure(filed: House) -> None:
    async def scenario() -> None:
        sessions = of(filed)
        mine = await sessions.open(FILE_KEY, HERE)
        assert await sessions.authorise(mine, None, HERE)
        before, refused = filed.asked, 0
        for number in range(200):
            try:
                await sessions.authorise(f"cs_{number:043d}", None, HERE)
            except QuotaExceededError:
                refused += 1
            except UnauthenticatedError:
                pass
        assert filed.asked - before == 10 and refused == 190
        with pytest.raises(UnauthenticatedError):  # known to be nobody's: no guess any more
            await sessions.authorise(f"cs_{0:043d}", None, HERE)
        filed.clock.now += 1.0
        assert await sessions.authorise(mine, None, HERE)

    run(scenario)


def test_nothing_in_the_database_is_a_token_or_a_key(filed: House, tmp_path: Path) -> None:
    tokens = []

    async def scenario() -> None:
        tokens.append((await of(filed).open(FILE_KEY, HERE)).encode())

    run(scenario)
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert tokens[0] not in stored and FILE_KEY.encode() not in stored
    assert hashlib.sha256(tokens[0]).hexdigest().encode() in stored  # the control: this is there
