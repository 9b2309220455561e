import fnmatch
import itertools
from typing import Any

import pytest

from prompts_store.errors import InvalidError
from prompts_store.tenants.task_patterns import MAX_PATTERNS, check_patterns, matches_any


def test_a_star_is_any_number_of_characters_and_nothing_else_is_special() -> None:
    """Against the standard library's, on every pattern and name of these letters."""
    names = ["".join(name) for n in range(1, 5) for name in itertools.product("ab.", repeat=n)]
    patterns = ["".join(p) for n in range(1, 5) for p in itertools.product("ab*", repeat=n)]
    for pattern in patterns:
        fits = {name for name in names if matches_any([pattern], name)}
        assert fits == set(fnmatch.filter(names, pattern)), pattern


@pytest.mark.parametrize(
    ("patterns", "name", "fits"),
    [
        (None, "anything", True),
        (["sst2"], "sst2", True),
        (["sst2"], "sst22", False),
        (["a.c"], "abc", False),
        (["x", "sentiment-*"], "sentiment-", True),
        (["*-v2"], "topics-v2", True),
        (["aa*aa"], "aaa", False),
        (["*"], "a", True),
        (["[ab]"], "a", False),
    ],
)
def test_patterns_of_names(patterns: list[str] | None, name: str, fits: bool) -> None:
    assert matches_any(patterns, name) is fits


@pytest.mark.parametrize(
    ("pattern", "owner", "name", "fits"),
    [
        ("sst2", "acme", "sst2", False),
        ("*", "acme", "sst2", False),
        ("acme/sst2", "acme", "sst2", True),
        ("acme/sst2", "birch", "sst2", False),
        ("acme/*", "acme", "anything", True),
        ("*/sst2", "acme", "sst2", True),
        ("*/*", "own", "sst2", True),
        ("own/sst2", "own", "sst2", True),
        ("acme/sst2", "own", "sst2", False),
        ("*", "own", "sst2", True),
    ],
)
def test_what_another_tenant_shares_is_named_with_its_owner(
    pattern: str, owner: str, name: str, fits: bool
) -> None:
    assert check_patterns([pattern]) == (pattern,)
    assert matches_any([pattern], name, owner=owner, tenant="own") is fits


def test_many_stars_are_no_trap() -> None:
    """A matcher that goes back would not end."""
    assert not matches_any(["a*" * 31 + "b"], "a" * 64)


@pytest.mark.parametrize(
    ("patterns", "field"),
    [
        ([], "tasks"),
        ("sst2", "tasks"),
        (["a"] * (MAX_PATTERNS + 1), "tasks"),
        (["a", "B"], "tasks.1"),
        (["a?"], "tasks.0"),
        (["acme/"], "tasks.0"),
        (["/sst2"], "tasks.0"),
        (["a/b/c"], "tasks.0"),
        (["sst2@live"], "tasks.0"),
        ([""], "tasks.0"),
        (["a" * 65], "tasks.0"),
        ([7], "tasks.0"),
        (7, "tasks"),
    ],
)
def test_what_is_no_list_of_patterns_is_refused(patterns: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_patterns(patterns)
    assert (caught.value.code, caught.value.field) == ("invalid_pattern", field)


def test_patterns_are_kept_once_in_their_order() -> None:
    assert check_patterns(["b*", "a", "b*"]) == ("b*", "a")
    assert check_patterns(None) is None
