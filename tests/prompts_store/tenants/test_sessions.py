"""Sessions of the console: kept as digests, until they end."""

from datetime import timedelta

import pytest

from prompts_store import PromptStore
from prompts_store.errors import InvalidError
from prompts_store.tenants import sessions
from prompts_store.tenants.records import Session
from prompts_store.testing import FakeClock


def opened(store: PromptStore, clock: FakeClock, digit: str, hours: int = 12, public: str = "a" * 8) -> str:
    digest = digit * 64
    until = clock() + timedelta(hours=hours)
    store.open_session("acme", digest, public=public, seal=None, expires_at=until)
    return digest


def test_a_session_is_found_until_its_time_is_over(store: PromptStore, clock: FakeClock) -> None:
    digest, until = opened(store, clock, "1"), clock() + timedelta(hours=12)
    assert store.find_session(digest) == Session("acme", "a" * 8, None, until)
    assert store.find_session("2" * 64) is None
    clock.advance(12 * 3600 - 1)
    assert store.find_session(digest) is not None
    clock.advance(1)
    assert store.find_session(digest) is None


def test_a_session_that_was_ended_is_gone(store: PromptStore, clock: FakeClock) -> None:
    first, second = opened(store, clock, "1"), opened(store, clock, "2")
    store.end_session(first)
    store.end_session(first)
    assert store.find_session(first) is None and store.find_session(second) is not None


def test_what_is_over_is_dropped_and_the_rest_kept(store: PromptStore, clock: FakeClock) -> None:
    opened(store, clock, "1", hours=1)
    kept = opened(store, clock, "2", hours=3)
    assert store.drop_sessions() == 0
    clock.advance(2 * 3600)
    assert store.drop_sessions() == 1 and store.find_session(kept) is not None


def test_one_key_has_so_many_sessions_and_the_oldest_ends(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 2)
    other = opened(store, clock, "9", public="b" * 8)
    first, second, third = (opened(store, clock, digit) for digit in "123")
    assert store.find_session(first) is None
    assert None not in [store.find_session(digest) for digest in (second, third, other)]


@pytest.mark.parametrize(
    ("digest", "public", "seal"),
    [("x", "a" * 8, None), ("1" * 64, None, "y"), ("1" * 64, None, None), ("1" * 64, "a" * 8, "1" * 64)],
)
def test_what_is_no_session_is_refused(
    store: PromptStore, clock: FakeClock, digest: str, public: str | None, seal: str | None
) -> None:
    with pytest.raises(InvalidError):
        store.open_session("acme", digest, public=public, seal=seal, expires_at=clock())
