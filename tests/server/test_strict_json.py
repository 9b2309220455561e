from __future__ import annotations

import pytest

from chorus_server.strict_json import parse_strictly


def test_what_is_json_is_read() -> None:
    assert parse_strictly('{"a": [1, 2.5, null, {"a": "b"}]}') == {"a": [1, 2.5, None, {"a": "b"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "a key occurs twice"),
        ('[{"b": {"a": 1, "a": 1}}]', "a key occurs twice"),
        ("NaN", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("{'a': 1}", "property name"),
    ],
)
def test_what_is_not_json_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_strictly(text)


def test_a_text_nested_too_deeply_is_refused() -> None:
    with pytest.raises(RecursionError):
        parse_strictly("[" * 100_000)
