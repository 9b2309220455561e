"""What varies in a search, as people write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus.errors import InvalidArgumentError
from chorus.strict_json import parse_strictly


def knob_values(texts: Mapping[str, str]) -> dict[str, Any]:
    """The space of a job document, of each knob's text: a list such as `0.1,0.3`, or a span such as
    `0.001..0.5`, of which a grid takes 5 values with `:5`.

    Raises:
        InvalidArgumentError: a text is not of this form.
    """
    found: dict[str, Any] = {}
    for knob, text in texts.items():
        low, dots, rest = text.partition("..")
        if not dots:
            found[knob] = [_value(each.strip()) for each in text.split(",")]
            continue
        high, colon, points = rest.partition(":")
        try:
            found[knob] = {"low": float(low), "high": float(high)}
            found[knob] |= {"points": int(points)} if colon else {}
        except ValueError:
            raise InvalidArgumentError(
                f"{knob}={text} must be LOW..HIGH or LOW..HIGH:POINTS, in numbers.", field=knob
            ) from None
    return found


def _value(text: str) -> Any:
    try:
        return parse_strictly(text)
    except ValueError:
        return text
