from __future__ import annotations

from pathlib import Path

import pytest

from chorus_server.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from chorus_server.tenancy.keys import KeyRing, load_keys
from chorus_server.tenancy.principal import ALL_SCOPES, Principal, Scope

KEY = "k" * 32
TOKEN = "t" * 32


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_without_keys_everybody_is_the_tenant() -> None:
    ring = load_keys("acme", None, None)
    assert not ring.required
    caller = ring.authorise(None, Scope.WRITE)
    assert (caller.tenant, caller.scopes) == ("acme", ALL_SCOPES)
    assert ring.authorise("Bearer whatever", Scope.INFER).tenant == "acme"


def test_one_key_opens_everything(tmp_path: Path) -> None:
    ring = load_keys("acme", write(tmp_path, "key", f" {KEY}\n"), None)
    assert ring.required
    for scope in Scope:
        assert ring.authorise(f"Bearer {KEY}", scope).tenant == "acme"
        with pytest.raises(UnauthenticatedError):
            ring.authorise(None, scope)


def test_the_scrape_token_reads_metrics_and_nothing_else(tmp_path: Path) -> None:
    ring = load_keys("acme", write(tmp_path, "key", KEY), write(tmp_path, "token", TOKEN))
    assert ring.authorise(f"Bearer {TOKEN}", Scope.METRICS).name == "scrape"
    with pytest.raises(ForbiddenError):
        ring.authorise(f"Bearer {TOKEN}", Scope.READ)


def test_a_scrape_token_alone_locks_only_metrics(tmp_path: Path) -> None:
    ring = load_keys("acme", None, write(tmp_path, "token", TOKEN))
    assert not ring.required
    assert ring.authorise(None, Scope.INFER).name == "anonymous"
    with pytest.raises(UnauthenticatedError):
        ring.authorise(None, Scope.METRICS)


@pytest.mark.parametrize("text", ["", "short", "has white space in it", "x" * 513])
def test_a_file_without_a_usable_secret_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_keys("acme", write(tmp_path, "key", text), None)
    assert caught.value.field == "api_key_file"
    assert not text or text not in caught.value.message


def test_missing_and_equal_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as missing:
        load_keys("acme", None, tmp_path / "nothing")
    assert missing.value.field == "scrape_token_file"
    same = write(tmp_path, "same", KEY)
    with pytest.raises(InvalidInputError, match="two different secrets"):
        load_keys("acme", same, same)


def test_the_ring_keeps_no_secret() -> None:
    ring = KeyRing({KEY: Principal("acme", "key")}, Principal("acme", "anonymous"))
    assert KEY not in repr(vars(ring))
