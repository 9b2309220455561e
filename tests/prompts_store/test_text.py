"""Callers' values in messages: ASCII, escaped, short."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts_store.text import has_control_characters, is_unicode, shown


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters()) | st.binary() | st.integers() | st.lists(st.text()))
def test_anything_is_shown_as_short_printable_ascii(value: object) -> None:
    text = shown(value)
    assert text.isascii() and text.isprintable() and len(text) <= 63


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert shown("x" * 10_000_000) == "'" + "x" * 59 + "..."


@pytest.mark.parametrize(
    ("text", "is_one"), [("", True), ("é", True), ("\U0001f600", True), ("\ud83d", False)]
)
def test_lone_surrogates_are_not_unicode(text: str, is_one: bool) -> None:
    assert is_unicode(text) is is_one


@pytest.mark.parametrize(
    ("text", "has"),
    [("a b", False), ("é", False), ("\n", True), ("\x00", True), ("\x9b", True)],
)
def test_control_characters(text: str, has: bool) -> None:
    assert has_control_characters(text) is has


def test_allowed_control_characters() -> None:
    assert not has_control_characters("a\n\t", allowed="\n\t")
