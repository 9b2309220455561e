"""Templates know `{name}` only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts_store.errors import InvalidError
from prompts_store.tasks.template import (
    MAX_TEMPLATE_CHARACTERS,
    MAX_TEMPLATE_FIELDS,
    check_template,
    parse_template,
    render_input,
)

RTE = "hypothesis: {hypothesis} premise: {premise}"
FUZZ = settings(max_examples=500, deadline=None, derandomize=True)


def fault(template: Any, input: Any = "x") -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        render_input(template, input) if isinstance(template, str) else check_template(template)
    return caught.value


@pytest.mark.parametrize(
    ("template", "input", "text"),
    [
        ("{text}", "a b", "a b"),
        ("{text}", "", ""),
        ("{text}", {"text": "a"}, "a"),
        (RTE, {"premise": "p", "hypothesis": "h"}, "hypothesis: h premise: p"),
        ("{a}{b}{a}", {"a": "1", "b": "2"}, "121"),
        ("{{{a}}} {{a}}", "x", "{x} {a}"),
        ("}}{{{_a1}", "x", "}{x"),
        ("line\n\t{a}\r\n", "é\U0001f600", "line\n\té\U0001f600\r\n"),
    ],
)
def test_rendering(template: str, input: Any, text: str) -> None:
    assert render_input(template, input) == text


def test_a_value_is_never_read_as_a_template() -> None:
    assert (
        render_input(RTE, {"hypothesis": "{premise}", "premise": "}}{{"})
        == "hypothesis: {premise} premise: }}{{"
    )


def test_fields_in_order_of_first_use() -> None:
    assert parse_template("{b} {a} {b}").fields == ("b", "a")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{", "'{' at character 0"),
        ("a }", "'}' at character 2"),
        ("{a}}", "'}' at character 3"),
        ("{a{b}}", "'{' at character 0"),
        ("{}", "''"),
        ("{0}", "'0'"),
        ("{ a }", "' a '"),
        ("{a.b}", "'a.b'"),
        ("{a[0]}", "'a[0]'"),
        ("{a!r}", "'a!r'"),
        ("{a:>9}", "'a:>9'"),
        ("{text.__class__.__init__.__globals__}", "not a name"),
        ("{é}", r"'\xe9'"),
        ("{%s}" % ("a" * 65), "at most 64 characters"),
        ("no field", "uses 0"),
        ("", "uses 0"),
        ("{{text}}", "uses 0"),
        ("".join(f"{{f{i}}}" for i in range(MAX_TEMPLATE_FIELDS + 1)), "uses 65"),
        ("{a}" + "x" * MAX_TEMPLATE_CHARACTERS, "16387 characters"),
        ("{a}\x00", "control characters"),
        ("{a}\x1b[2J", "control characters"),
        ("{a}\ud800", "surrogates"),
        (None, "NoneType"),
        (["{a}"], "list"),
    ],
)
def test_what_is_no_template(template: Any, says: str) -> None:
    error = fault(template)
    assert (error.code, error.field) == ("invalid_template", "template")
    assert says in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize(
    ("input", "code", "field", "says"),
    [
        ({"premise": "p"}, "missing_field", "input.hypothesis", "'hypothesis'"),
        ({}, "missing_field", "input.hypothesis", "'hypothesis', 'premise'"),
        ("plain", "missing_field", "input", "2 fields"),
        ({"hypothesis": "h", "premise": "p", "label": "x"}, "unknown_field", "input.label", "'label'"),
        ({"hypothesis": "h", "premise": "p", "\x1b[2J": "x"}, "unknown_field", "input", r"\x1b"),
        ({"hypothesis": "h", "premise": "p", 3: "x"}, "unknown_field", "input", "3"),
        ({"hypothesis": "h", "premise": None}, "invalid_field", "input.premise", "NoneType"),
        ({"hypothesis": 3, "premise": "p"}, "invalid_field", "input.hypothesis", "int"),
        ({"hypothesis": "h", "premise": "\ud800"}, "invalid_field", "input.premise", "surrogates"),
        (["h", "p"], "invalid_field", "input", "list"),
        (None, "invalid_field", "input", "NoneType"),
    ],
)
def test_what_cannot_be_rendered(input: Any, code: str, field: str, says: str) -> None:
    error = fault(RTE, input)
    assert (error.code, error.field) == (code, field)
    assert says in error.message
    assert error.message.isprintable()


def test_the_path_of_the_input_is_the_caller_s() -> None:
    with pytest.raises(InvalidError) as caught:
        render_input("{a}", {"a": 1}, field="requests.3.input")  # type: ignore[dict-item]
    assert caught.value.field == "requests.3.input.a"


@FUZZ
@given(st.text(st.sampled_from("{}ab.!:_0 é")), st.text(max_size=5))
def test_any_text_is_a_template_or_an_invalid_error(template: str, value: str) -> None:
    try:
        parsed = parse_template(template)
        text = parsed.render(dict.fromkeys(parsed.fields, value))
    except InvalidError:
        return
    # str.format agrees on every template that is one: same escapes, same fields, and nothing more is allowed.
    assert text == template.format(**dict.fromkeys(parsed.fields, value))


@FUZZ
@given(st.lists(st.tuples(st.text(max_size=6), st.sampled_from("abc")), min_size=1, max_size=6))
def test_any_literal_survives_when_escaped(pieces: list[tuple[str, str]]) -> None:
    usable = [(text, name) for text, name in pieces if text.isprintable()]
    template = "".join(text.replace("{", "{{").replace("}", "}}") + "{" + name + "}" for text, name in usable)
    if usable:
        expected = "".join(text + name.upper() for text, name in usable)
        names = {name for _, name in usable}
        assert parse_template(template).render({name: name.upper() for name in names}) == expected
