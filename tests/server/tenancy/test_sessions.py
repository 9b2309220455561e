"""A session stands for its key, as that is now, and for nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chorus_server.errors import UnauthenticatedError
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import ALL_SCOPES, Principal, Scope
from chorus_server.tenancy.sessions import Sessions
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

    return Sessions(house.store, house.callers, house.ask, save, lambda: house.now)


def test_a_session_is_its_key_until_that_is_revoked(filed: House) -> None:
    async def scenario() -> None:
        id, header = filed.key("default", "web", scopes=["infer", "tune"], tasks=["s*"])
        sessions = of(filed)
        token, seconds = await sessions.open(header.removeprefix("Bearer "), HERE)
        assert seconds == 12 * 3600
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
        token, _ = await sessions.open(FILE_KEY, HERE)
        assert (await sessions.authorise(token, Scope.OPERATOR, HERE)).name == "operator"
        other = {"p" * 32: Principal("default", "operator", ALL_SCOPES)}
        filed.callers.ring = KeyRing(other, filed.callers.ring.anonymous)
        with pytest.raises(UnauthenticatedError):
            await sessions.authorise(token, None, HERE)

    run(scenario)


def test_a_session_ends_when_its_time_or_its_owner_says_so(filed: House) -> None:
    async def scenario() -> None:
        sessions = of(filed)
        first, _ = await sessions.open(FILE_KEY, HERE)
        second, _ = await sessions.open(FILE_KEY, HERE)
        await sessions.end(first)
        with pytest.raises(UnauthenticatedError):
            await sessions.authorise(first, None, HERE)
        assert await sessions.authorise(second, None, HERE)
        now = filed.now
        filed.store._clock = lambda: now + timedelta(hours=12, seconds=1)
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


def test_nothing_in_the_database_is_a_token_or_a_key(filed: House, tmp_path: Path) -> None:
    tokens = []

    async def scenario() -> None:
        tokens.append((await of(filed).open(FILE_KEY, HERE))[0].encode())

    run(scenario)
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert tokens[0] not in stored and FILE_KEY.encode() not in stored
    assert hashlib.sha256(tokens[0]).hexdigest().encode() in stored  # the control: this is there
