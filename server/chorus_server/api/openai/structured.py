"""A JSON schema that one value decides: its values are ranked, so the answer is always valid.

    {"type": "object", "properties": {"label": {"enum": ["spam", "ham"]}}, "required": ["label"]}

What libraries make of an enumeration is read too: `$ref`, `allOf` of one, `anyOf` of constants, a constant
or an enum of one value beside it, an object around it, a null beside it (which is never chosen). Values that
are not of the schema's `type` are left out. Anything else would be free text, which need not fit the schema.

Whatever the schema, reading it takes a few milliseconds, because it is done on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.schemas.inference import LONGEST_LABEL
from chorus_server.errors import InvalidInputError
from prompts_store.digests import canonical_text

_DEEPEST = 16
_MOST = 2048
"""Parts and values of a schema that are looked at. References may make a short one endless."""

_LONGEST_REFERENCE = 512
_KINDS = 7
"""Types that JSON schema knows."""

_FORMAT = "response_format"


@dataclass(frozen=True, slots=True)
class Choosing:
    """Which value to choose, and what the answer is then.

    Attributes:
        values: to choose from.
        labels: the text of each, which is ranked.
        field: dotted path of the schema in the body.
        tool: that is called with the answer; None if the answer is the text.
        wrap: the whole answer around a value.
    """

    values: tuple[Any, ...]
    labels: tuple[str, ...]
    field: str
    tool: str | None
    wrap: Callable[[Any], Any]

    def text(self, place: int) -> str:
        """The answer with the value in this place, as a JSON text."""
        return canonical_text(self.wrap(self.values[place]))


def choosing_of_format(given: dict[str, Any] | None, field: str = _FORMAT) -> Choosing | None:
    """What `response_format`, or `text.format` of a response, asks for; None for text.

    Raises:
        InvalidInputError: anything but text and a schema that one value decides.
    """
    kind = "text" if given is None else given.get("type")
    if given is None or kind == "text":
        return None
    if kind != "json_schema":
        raise InvalidInputError(
            "It is text, or json_schema with one field that has an enum.", field=f"{field}.type"
        )
    inner, place = (given, field) if "schema" in given else (given.get("json_schema"), f"{field}.json_schema")
    return _choosing(inner.get("schema") if isinstance(inner, dict) else None, f"{place}.schema", None)


def choosing_of_tools(tools: Sequence[dict[str, Any]] | None, choice: Any) -> Choosing | None:
    """What `tools` and `tool_choice` ask for; None if no tool may be called. A single tool is always called:
    the model cannot decide not to.

    Raises:
        InvalidInputError: it does not say which of several tools, or one value does not decide its arguments.
    """
    if not tools or choice == "none":
        return None
    named = None
    if isinstance(choice, dict):
        inner = choice.get("function")
        named = inner.get("name") if isinstance(inner, dict) else choice.get("name")
        if not isinstance(named, str):
            raise InvalidInputError("Name the function.", field="tool_choice")
    elif choice not in (None, "auto", "required"):
        raise InvalidInputError("It is auto, required, none or a function.", field="tool_choice")
    for at, tool in enumerate(tools):
        inner = tool.get("function")
        place = f"tools.{at}.function" if isinstance(inner, dict) else f"tools.{at}"
        function = inner if isinstance(inner, dict) else tool
        name = function.get("name")
        if tool.get("type") != "function" or not isinstance(name, str):
            raise InvalidInputError("A tool is a function with a name.", field=f"tools.{at}")
        if named in (None, name):
            if named is None and len(tools) > 1:
                break
            return _choosing(function.get("parameters"), f"{place}.parameters", name)
    if named is not None:
        raise InvalidInputError("No tool has this name.", field="tool_choice")
    raise InvalidInputError(
        "The model does not decide which of several tools to call: name one in tool_choice.", field="tools"
    )


def _choosing(schema: Any, field: str, tool: str | None) -> Choosing:
    values, wrap = _Reader(schema, field).decided(schema, 0)
    labels = tuple(value if isinstance(value, str) else canonical_text(value) for value in values)
    return Choosing(tuple(values), labels, field, tool, wrap)


@dataclass(slots=True)
class _Reader:
    root: Any
    field: str
    looked_at: int = 0

    def refused(self, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"{why} This server answers a schema by ranking the values of one enum: send an object of one "
            "required property that has an enum of two values or more.",
            field=self.field,
        )

    def decided(self, schema: Any, depth: int) -> tuple[list[Any], Callable[[Any], Any]]:
        """The values, and what they stand in."""
        schema = self.resolved(schema, depth)
        values = self.values(schema, depth)
        if values is not None:
            return self.checked(values), lambda value: value
        properties = schema.get("properties")
        is_object = "object" in (_kinds_of(schema) or {"object"})
        if not is_object or not isinstance(properties, dict) or not properties:
            raise self.refused("The schema has no enum and is no object with properties.")
        required = schema.get("required")
        wanted = set(filter(_is_text, required)) if isinstance(required, list) else set(properties)
        if not wanted <= properties.keys():
            raise self.refused("A required property is not among the properties.")
        names = [name for name in properties if name in wanted] or list(properties)
        fixed: dict[str, Any] = {}
        for name in names:
            values = self.values(self.resolved(properties[name], depth + 1), depth + 1) or []
            chosen = _not_null(values) or values[:1]
            if len(chosen) == 1:
                (fixed[name],) = self.simple(chosen)
        open_ones = [name for name in names if name not in fixed]
        if len(open_ones) != 1:
            raise self.refused(f"The schema has {len(open_ones)} required properties to be decided.")
        (name,) = open_ones
        values, wrap = self.decided(properties[name], depth + 1)
        order = [each for each in properties if each == name or each in fixed]
        return values, lambda value: {each: wrap(value) if each == name else fixed[each] for each in order}

    def look(self, parts: int) -> None:
        """Count what is looked at."""
        self.looked_at += parts
        if self.looked_at > _MOST:
            raise self.refused("The schema has too many parts and values.")

    def resolved(self, schema: Any, depth: int) -> dict[str, Any]:
        """The schema itself, behind references and an `allOf` of one."""
        for _ in range(_DEEPEST - depth):
            self.look(1)
            if not isinstance(schema, dict):
                raise self.refused("A part of the schema is no object.")
            reference, every = schema.get("$ref"), schema.get("allOf")
            if isinstance(reference, str):
                schema = self.found(reference)
            elif isinstance(every, list) and len(every) == 1 and "properties" not in schema:
                schema = every[0]
            else:
                return schema
        raise self.refused("The schema is nested too deeply.")

    def found(self, reference: str) -> Any:
        here: Any = self.root
        if not reference.startswith("#"):
            raise self.refused("The schema refers to another document.")
        if len(reference) > _LONGEST_REFERENCE:
            raise self.refused(f"A reference has more than {_LONGEST_REFERENCE} characters.")
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(here, dict) or name not in here:
                raise self.refused("A reference leads nowhere.")
            here = here[name]
        return here

    def values(self, schema: dict[str, Any], depth: int) -> list[Any] | None:
        """The values of an enumeration that are of its type; None for another schema."""
        found: list[Any] = []
        enum, several = schema.get("enum"), schema.get("anyOf", schema.get("oneOf"))
        if "const" in schema:
            found, several = [schema["const"]], []
        elif isinstance(enum, list):
            self.look(len(enum))
            found, several = enum, []
        elif not isinstance(several, list):
            return None
        for each in several:
            inner = self.resolved(each, depth + 1)
            if inner.get("type") == "null":
                continue
            more = self.values(inner, depth + 1)
            if more is None:
                return None
            found += more
        kinds = _kinds_of(schema)
        return found if kinds is None else [value for value in found if kinds & _kinds_of_value(value)]

    def checked(self, values: list[Any]) -> list[Any]:
        chosen = _not_null(values)
        if len(chosen) < 2:
            raise self.refused("The enum has less than two values of its type.")
        return self.simple(chosen)

    def simple(self, values: list[Any]) -> list[Any]:
        """The values, if they make no answer long."""
        for value in values:
            if isinstance(value, list | dict):
                raise self.refused("The enum has values that are lists or objects.")
            if isinstance(value, str) and len(value) > LONGEST_LABEL:
                raise self.refused(f"The enum has a value of more than {LONGEST_LABEL} characters.")
            if isinstance(value, int) and value.bit_length() > 64:
                raise self.refused("The enum has an integer of more than 64 bits.")
        return values


def _not_null(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _kinds_of(schema: dict[str, Any]) -> set[str] | None:
    """The types that a schema allows; None for all."""
    given = schema.get("type")
    if isinstance(given, list):
        return set(filter(_is_text, given[:_KINDS]))
    return {given} if isinstance(given, str) else None


def _kinds_of_value(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return {"number", "integer"}
    return {_NAMES[type(value)]}


_NAMES = {float: "number", str: "string", type(None): "null", list: "array", dict: "object"}
