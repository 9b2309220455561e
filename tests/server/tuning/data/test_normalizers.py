"""The normalisers, against what T5 makes of the same texts (`tests/fixtures/datasets/make_expected.py`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.columns import text_row
from chorus_server.tuning.data.normalizers import NORMALIZERS, check_normalizer, normalized, unsuited
from chorus_server.tuning.document.prompt import PromptDocument
from prompts_store.tasks.template import parse_template
from tests.places import FIXTURES

TEXTS: dict[str, str] = json.loads((FIXTURES / "datasets" / "punctuation.json").read_text())
QUESTION = "question: {question} context: {context}"


def rendered(settings: dict[str, Any], template: str, **fields: str) -> str:
    parsed = parse_template(template)
    found = normalized(settings, parsed, fields)
    as_bytes = normalized(settings, parsed, {name: text.encode() for name, text in fields.items()})
    assert {name: text.encode() for name, text in found.items()} == as_bytes
    return parsed.render(found)


def test_punctuation_is_padded_as_t5_pads_it() -> None:
    for text, padded in TEXTS.items():
        assert NORMALIZERS["t5_punctuation"].rewrite(text) == padded
    assert TEXTS["\u00bfqu\u00e9?"] == "\u00bfqu\u00e9 ? ", "ASCII alone"


def test_spaces_where_a_field_meets_the_template_become_one() -> None:
    asked = {"normalizer": "t5_punctuation"}
    assert rendered(asked, QUESTION, question="'Who?'", context="(A) b.") == (
        "question: ' Who ? ' context: ( A ) b . "
    )
    assert rendered(asked, "<{a}>", a="?") == "< ? >"
    assert rendered({}, QUESTION, question="Who?", context="b.") == "question: Who? context: b."


def test_html_and_highlights() -> None:
    asked = {"normalizer": "t5_multirc"}
    assert rendered(asked, "{a}{b}", a="<b>x</b><br>y", b="<i>") == "x y<i>"
    asked = {"normalizer": "t5_record"}
    odd = "a\n@highlight\nb!\n@highlight\nc"
    assert rendered(asked, "{query} {passage}", query=odd, passage=odd) == f"{odd} a. b! c"


def test_a_row_of_a_file_is_normalised_as_a_request_is() -> None:
    prompt = PromptDocument(template="q: {q}", settings={"normalizer": "t5_punctuation"})
    assert text_row(prompt, 1, {"q": "A.B", "label": "c.d"}, field="data").text == "q: A . B"
    plain = PromptDocument(template="q: {q}")  # the control
    assert text_row(plain, 1, {"q": "A.B", "label": "c.d"}, field="data").text == "q: A.B"


def test_only_names_that_exist_are_taken() -> None:
    for name in NORMALIZERS:
        check_normalizer(name, "settings.normalizer")
    for wrong in ("t5", None, ["t5_record"], 3):
        with pytest.raises(InvalidInputError, match="t5_punctuation, t5_multirc, t5_record"):
            check_normalizer(wrong, "settings.normalizer")
    assert unsuited("{passage}", "t5_record") is None and unsuited("{text}", "t5_multirc") is None
    assert "the template has text" in (unsuited("{text}", "t5_record") or "")
