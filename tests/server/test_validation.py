"""Errors of pydantic read like the other errors, whatever its own words are."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus_server.validation import input_error, sentence_of


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)

    count: int = Field(2, ge=1, le=9)
    share: float = Field(0.5, gt=0, lt=1)
    kind: Literal["a", "b"] = "a"
    names: list[str] = Field(["x"], min_length=1, max_length=2)
    text: str = Field("x", min_length=1, max_length=3)
    flag: bool = False
    inner: dict[str, int] = {}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "Send a JSON object."),
        ({"count": 0}, "It must be at least 1."),
        ({"count": 10}, "It must be at most 9."),
        ({"count": "1"}, "Send a whole number."),
        ({"share": 0.0}, "It must be above 0."),
        ({"share": 1.0}, "It must be below 1."),
        ({"share": "x"}, "Send a number."),
        ({"kind": "c"}, "It must be 'a' or 'b'."),
        ({"names": []}, "It has 0 items; 1 is the fewest."),
        ({"names": ["x"] * 3}, "It has too many items; 2 is the most."),
        ({"names": 1}, "Send a list."),
        ({"text": ""}, "It must have at least 1 characters."),
        ({"text": "xxxx"}, "It must have at most 3 characters."),
        ({"text": 1}, "Send a text."),
        ({"flag": 1}, "Send true or false."),
        ({"inner": 1}, "Send a JSON object."),
    ],
)
def test_a_problem_says_what_was_expected(body: Any, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Body.model_validate(body)
    assert sentence_of(dict(caught.value.errors(include_url=False)[0])) == sentence


def test_an_unknown_kind_keeps_its_own_words() -> None:
    assert sentence_of({"type": "value_error", "msg": "Value error, Send one of both"}) == "Send one of both."


def test_a_validation_error_never_shows_the_value() -> None:
    problem = {"type": "int_type", "loc": ("requests", 2, "n"), "msg": "Input should be an integer"}
    error = input_error(problem | {"input": "secret"})
    assert (error.field, error.message) == ("requests.2.n", "Send a whole number.")
