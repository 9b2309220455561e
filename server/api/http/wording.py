"""What pydantic found, in the words of the other errors: what was expected, never the value."""

from __future__ import annotations

from typing import Any

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


def sentence_of(problem: dict[str, Any]) -> str:
    """One sentence for a problem of `ValidationError.errors()`; pydantic's own for an unknown kind."""
    words = _WORDS.get(str(problem["type"]))
    if words is not None:
        return words.format_map(problem.get("ctx", {}))
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text if text.endswith(".") else text + "."
