from __future__ import annotations

import logging
from pathlib import Path

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tenancy.keys import KeyRing, load_keys
from chorus_server.tenancy.principal import ALL_SCOPES, TENANT_SCOPES, Principal, Scope

KEY = "k" * 32
TOKEN = "t" * 32
OPERATOR = "o" * 32


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_without_files_there_is_no_key() -> None:
    ring = load_keys("acme", None, None, None)
    assert not ring.required and not any(map(ring.requires, Scope))
    assert ring.find("whatever") is None
    anonymous = ring.anonymous
    assert (anonymous.tenant, anonymous.scopes, anonymous.keyless) == ("acme", ALL_SCOPES, True)


def test_each_file_has_its_scopes(tmp_path: Path) -> None:
    files = (write(tmp_path, "operator", OPERATOR), write(tmp_path, "key", f" {KEY}\n"))
    ring = load_keys("acme", *files, write(tmp_path, "token", TOKEN))
    assert ring.required
    found = {secret: ring.find(secret) for secret in (OPERATOR, KEY, TOKEN)}
    assert {secret: (each.tenant, each.name, each.scopes) for secret, each in found.items() if each} == {
        OPERATOR: ("acme", "operator", ALL_SCOPES),
        KEY: ("acme", "key", TENANT_SCOPES),
        TOKEN: ("acme", "scrape", {Scope.METRICS}),
    }
    assert ring.find(KEY + "k") is None


def test_a_scrape_token_alone_locks_only_metrics(tmp_path: Path) -> None:
    ring = load_keys("acme", None, None, write(tmp_path, "token", TOKEN))
    assert not ring.required
    assert [scope for scope in Scope if ring.requires(scope)] == [Scope.METRICS]


def test_what_0_1_0_had_is_told_to_be_deprecated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "chorus.tenancy"):
        load_keys("acme", write(tmp_path, "operator", OPERATOR), None, None)
        assert not caplog.records
        load_keys("acme", None, write(tmp_path, "key", KEY), write(tmp_path, "token", TOKEN))
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in told] == ["api_key_file", "scrape_token_file"]
    assert all("POST /v1/keys" in line for line in told)
    assert KEY not in caplog.text and TOKEN not in caplog.text


@pytest.mark.parametrize("text", ["", "short", "has white space in it", "x" * 513])
def test_a_file_without_a_usable_secret_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    for place, field in enumerate(("operator_key_file", "api_key_file", "scrape_token_file")):
        files: list[Path | None] = [None, None, None]
        files[place] = write(tmp_path, "key", text)
        with pytest.raises(InvalidInputError) as caught:
            load_keys("acme", *files)
        assert caught.value.field == field
        assert not text or text not in caught.value.message


def test_missing_and_equal_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as missing:
        load_keys("acme", None, None, tmp_path / "nothing")
    assert missing.value.field == "scrape_token_file"
    same = write(tmp_path, "same", KEY)
    with pytest.raises(InvalidInputError, match="make two"):
        load_keys("acme", None, same, same)


def test_the_ring_keeps_no_secret() -> None:
    ring = KeyRing({KEY: Principal("acme", "key")}, Principal("acme", "anonymous"))
    assert KEY not in repr(vars(ring))
