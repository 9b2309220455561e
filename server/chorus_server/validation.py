"""Strict models of what callers send, and errors that say what is wrong with it in our own words.

An error says what was expected, and never shows the value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chorus_server.errors import InvalidInputError

T = TypeVar("T")

Items = Annotated[list[T], Field(fail_fast=True)]
"""A list of which only the first bad item is reported."""

_SAFE_KEY = re.compile(r"[A-Za-z0-9_\-]{1,64}", re.ASCII)


class RequestModel(BaseModel):
    """Base of request bodies: unknown fields are errors, nothing is coerced, NaN is refused.

    Attributes:
        most: the most items that a long list or object may have, by the name of its field anywhere in the
            body. They are counted before the list is built.
        long_texts: names of the fields, anywhere in the body, whose texts may be long. A long text in one of
            them comes as UTF-8, in bytes. In any other field, a text is cut at a length that is too long for
            the field anyway. If None, every text comes whole.
        others: the most items of every list or object that `most` does not name.
    """

    most: ClassVar[Mapping[str, int]] = {}
    long_texts: ClassVar[Collection[str] | None] = ()
    others: ClassVar[int] = 64

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class NullsLeftOut(RequestModel):
    """Base of objects in which a null field counts as left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: each for name, each in value.items() if each is not None}


_WORDS = {
    "model_attributes_type": "Send a JSON object.",
    "model_type": "Send a JSON object.",
    "dict_type": "Send a JSON object.",
    "list_type": "Send a list.",
    "tuple_type": "Send a list.",
    "string_type": "Send a text.",
    "bool_type": "Send true or false.",
    "int_type": "Send a whole number.",
    "int_parsing": "Send a whole number.",
    "int_from_float": "Send a whole number.",
    "float_type": "Send a number.",
    "float_parsing": "Send a number.",
    "finite_number": "Send a finite number.",
    "greater_than": "It must be above {gt:g}.",
    "greater_than_equal": "It must be at least {ge}.",
    "less_than": "It must be below {lt:g}.",
    "less_than_equal": "It must be at most {le}.",
    "too_short": "It has {actual_length} items; {min_length} is the fewest.",
    "too_long": "It has too many items; {max_length} is the most.",
    "string_too_short": "It must have at least {min_length} characters.",
    "string_too_long": "It must have at most {max_length} characters.",
    "literal_error": "It must be {expected}.",
    "missing": "The field is required.",
}


def sentence_of(problem: Mapping[str, Any]) -> str:
    """One sentence for a problem from `ValidationError.errors()`; pydantic's own text for an unknown kind."""
    words = _WORDS.get(str(problem["type"]))
    if words is not None:
        return words.format_map(problem.get("ctx", {}))
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text if text.endswith(".") else text + "."


def join_path(path: str, key: object) -> str:
    """The dotted path one step deeper. A key with unusual characters appears as `?` and is never echoed."""
    name = str(key)
    shown = name if _SAFE_KEY.fullmatch(name) else "?"
    return f"{path}.{shown}" if path else shown


def input_error(problem: Mapping[str, Any]) -> InvalidInputError:
    """One problem from `ValidationError.errors()` as a sentence and a dotted path, without the value.

    A check of several fields together names the one at fault as `field` in its context.
    """
    location, path = problem["loc"], ""
    if "field" in problem.get("ctx", {}):
        location = (*location, problem["ctx"]["field"])
    if location and location[-1] == "[key]":  # a bad key: the object itself is at fault
        location = location[:-2]
    for part in location:
        path = join_path(path, part)
    code = "invalid_input"
    if problem["type"] == "extra_forbidden":
        code, message = "unknown_field", "There is no such field: remove it or correct its name."
    else:
        message = sentence_of(problem)
    return InvalidInputError(message, field=path or "body", code=code)


def validation_error(error: ValidationError) -> InvalidInputError:
    """An error for the first problem that pydantic found."""
    return input_error(error.errors(include_url=False, include_input=False)[0])
