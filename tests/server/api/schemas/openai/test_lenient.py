"""Strict on meaning, lenient on noise."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from chorus_server.api.schemas.openai.lenient import Ignored, LenientBody, Refused, fates
from chorus_server.errors import InvalidInputError
from chorus_server.validation import validation_error


class Options(LenientBody):
    width: int | None = None
    depth: Annotated[Any, Refused("There is one depth.", (1, 0.5))] = None


class Body(LenientBody):
    model: str = Field(description="Who answers.")
    user: Annotated[Any, Ignored("It changes no answer.")] = None
    store: Annotated[Any, Refused("Nothing is stored.", (False,))] = None
    options: Options | None = None


def refused(**sent: Any) -> InvalidInputError:
    with pytest.raises(ValidationError) as found:
        Body.model_validate({"model": "m", **sent})
    return validation_error(found.value)


@pytest.mark.parametrize(
    "noise",
    [
        {"user": {"anything": [1]}},
        {"store": False},
        {"store": None, "options": None},
        {"next_year": True},
        {"options": {"depth": 1, "width": None}},
        {"options": {"depth": 1.0, "height": 3}},
    ],
)
def test_what_asks_for_nothing_changes_nothing(noise: dict[str, Any]) -> None:
    body = Body.model_validate({"model": "m", **noise})
    assert (body.model, body.user, body.store) == ("m", None, None)
    assert body.options in (None, Options())


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"store": True}, "store"),
        ({"store": 0}, "store"),  # a number is no truth value
        ({"options": {"depth": 2}}, "options.depth"),
        ({"options": {"depth": True}}, "options.depth"),
        ({"options": {"width": "3"}}, "options.width"),  # what is honoured is not coerced
        ({"model": None}, "model"),
    ],
)
def test_what_would_change_the_answer_is_named(sent: dict[str, Any], field: str) -> None:
    assert refused(**sent).field == field


def test_a_refusal_says_why() -> None:
    assert refused(store=True).message == "Nothing is stored."


def test_the_declarations_say_what_becomes_of_each_field() -> None:
    assert list(fates(Body)) == [
        ("model", "honoured", "Who answers."),
        ("user", "ignored", "It changes no answer."),
        ("store", "refused", "Nothing is stored."),
        ("options", "honoured", ""),
    ]
    schema = Body.model_json_schema()["properties"]
    assert schema["store"]["enum"] == [None, False]
    assert schema["user"]["description"].startswith("Ignored.")
