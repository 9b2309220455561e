"""Schemas that one value decides, in the forms that libraries write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus_server.api.openai.structured import choosing_of_format
from chorus_server.errors import InvalidInputError

ENUM = {"enum": ["a", "b"]}


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def answered(schema: Any, place: int = 1) -> Any:
    choosing = choosing_of_format({"type": "json_schema", "json_schema": {"schema": schema}})
    assert choosing is not None
    return json.loads(choosing.text(place))


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (object_of(x=ENUM), {"x": "b"}),
        (object_of(x={"$ref": "#/$defs/X"}) | {"$defs": {"X": ENUM}}, {"x": "b"}),
        (object_of(x={"allOf": [{"$ref": "#/definitions/X"}]}) | {"definitions": {"X": ENUM}}, {"x": "b"}),
        ({"$ref": "#/$defs/M", "$defs": {"M": object_of(x=ENUM)}}, {"x": "b"}),
        (object_of(x={"anyOf": [{"const": "a"}, {"const": "b", "type": "string"}]}), {"x": "b"}),
        (object_of(x={"oneOf": [{"const": "a"}, ENUM]}), {"x": "a"}),
        (object_of(x={"anyOf": [ENUM, {"type": "null"}]}), {"x": "b"}),
        (object_of(x={"enum": ["a", None, "b"]}), {"x": "b"}),
        (object_of(x={"enum": [1, 2.5]}), {"x": 2.5}),
        (object_of(x={"enum": [False, True]}), {"x": True}),
        (object_of(x=object_of(y=ENUM)), {"x": {"y": "b"}}),
        (object_of(kind={"const": "k"}, x=ENUM), {"kind": "k", "x": "b"}),
        (object_of(x=ENUM, kind={"const": "k"}), {"kind": "k", "x": "b"}),
        (object_of(x=ENUM) | {"properties": {"why": {"type": "string"}, "x": ENUM}}, {"x": "b"}),
        ({"properties": {"x": ENUM}}, {"x": "b"}),
        (object_of(kind={"enum": ["k"]}, x=ENUM), {"kind": "k", "x": "b"}),
        (object_of(x=ENUM, kind={"anyOf": [{"const": "k"}, {"type": "null"}]}), {"x": "b", "kind": "k"}),
        (object_of(x=ENUM, nothing={"const": None}), {"x": "b", "nothing": None}),
        (object_of(x={"enum": ["b", "a", 3], "const": "b"}, y=ENUM), {"x": "b", "y": "b"}),
        (object_of(x={"type": "string", "enum": ["a", 3, "b"]}), {"x": "b"}),
        (object_of(x={"type": ["integer", "null"], "enum": [True, 1, 1.5, 2.0, None]}), {"x": 2}),
        (object_of(x={"type": "boolean", "enum": [0, 1, False, True]}), {"x": True}),
        (
            object_of(x={"type": "number", "anyOf": [{"const": "a"}, {"const": 1}, {"const": 2.5}]}),
            {"x": 2.5},
        ),
    ],
)
def test_forms_of_one_choice(schema: Any, answer: Any) -> None:
    assert answered(schema) == answer


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        [],
        {"type": "object"},
        object_of(x={"type": "string"}),
        object_of(x=ENUM, y=ENUM),
        object_of(x=ENUM, why={"type": "string"}),
        object_of(x={"type": "array", "items": ENUM}),
        object_of(x={"enum": ["a"]}),
        object_of(x={"enum": ["a", None]}),
        object_of(x={"enum": ["a", ["b"]]}),
        object_of(x={"anyOf": [ENUM, {"type": "string"}]}),
        object_of(x={"$ref": "#/$defs/X"}),
        object_of(x={"$ref": "https://example.org/x"}),
        object_of(x={"$ref": "#/properties/x"}),  # it leads to itself
        {"$ref": "#"},
        object_of(x=True),
        object_of(x={"anyOf": [{"$ref": "#/properties/x"}]}),
        object_of(x={"anyOf": [{"$ref": "#/properties/x"}] * 100}),  # 100 ** 16 parts
        object_of(**{f"x{n}": {"const": n} for n in range(5000)}, y=ENUM),
        object_of(x=ENUM) | {"required": ["x", "z"]},
        {"properties": {"x": ENUM}, "required": ["z"]},
        object_of(x={"type": "string", "enum": ["a", 3]}),
        object_of(x=ENUM) | {"type": "array"},
        object_of(x={"type": "colour", "enum": ["a", "b"]}),
        object_of(x={"enum": ["a", "b" * 513]}),
        object_of(x={"enum": [1, 2**64]}),
        object_of(x=ENUM, y={"const": ["k"]}),
        object_of(x=ENUM, y={"const": "k" * 513}),
        object_of(x={"$ref": f"#/$defs/{'X' * 513}"}) | {"$defs": {"X" * 513: ENUM}},
        object_of(x={"anyOf": [{"$ref": "#/$defs/X"}] * 20}) | {"$defs": {"X": {"enum": list(range(256))}}},
    ],
)
def test_all_else_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidInputError) as found:
        answered(schema)
    assert found.value.field == "response_format.json_schema.schema"


@pytest.mark.parametrize("given", [None, {"type": "text"}])
def test_text_is_no_choice(given: Any) -> None:
    assert choosing_of_format(given) is None
