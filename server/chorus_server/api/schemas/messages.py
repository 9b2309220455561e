"""The input of an OpenAI decision, a text or messages, as one text or one JSON value."""

from __future__ import annotations

from typing import Any

from chorus_server.errors import InvalidInputError
from prompts_store.digests import canonical_text

_ROLES = frozenset({"user", "developer", "system", "assistant"})
_OF_TEXT = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


def input_value(given: Any) -> Any:
    """The text, or the object or list of a single JSON part.

    Messages become lines as in `user: Where is my parcel?`; a single message is its text alone.

    Raises:
        InvalidInputError: names the message or part that no text can be made of.
    """
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise InvalidInputError("Send a text, or a list of one message or more.", field="input")
    if len(given) == 1 and isinstance(given[0], dict) and "role" in given[0]:
        content = given[0].get("content")
        if isinstance(content, list) and len(content) == 1 and _is_json(content[0]):
            return content[0]["data"]
        return _message(given[0], "input.0")[1]
    lines = (_message(each, f"input.{at}") for at, each in enumerate(given))
    return "\n".join(f"{who}: {text}" for who, text in lines)


def _message(item: Any, field: str) -> tuple[str, str]:
    """Who says it, and what."""
    if not isinstance(item, dict):
        raise InvalidInputError("Send an object with a role and content.", field=field)
    kind = item.get("type", "message")
    if kind == "message":
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise InvalidInputError(
                "The role is user, developer, system or assistant.", field=f"{field}.role"
            )
        return role, _content(item.get("content"), f"{field}.content")
    if kind in ("function_call", "custom_tool_call"):
        name = _string(item, "name", field)
        return "call", f"{name} {_string(item, 'arguments' if kind == 'function_call' else 'input', field)}"
    if kind in ("function_call_output", "custom_tool_call_output"):
        return "result", _content(item.get("output"), f"{field}.output")
    raise InvalidInputError(
        "It is a message, a function_call, a custom_tool_call, or the output of one.", field=f"{field}.type"
    )


def _content(content: Any, field: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise InvalidInputError("Send a text, or a list of one part or more.", field=field)
    return "\n".join(_part(part, f"{field}.{at}") for at, part in enumerate(content))


def _part(part: Any, field: str) -> str:
    if _is_json(part):
        return canonical_text(part["data"])
    kind = part.get("type") if isinstance(part, dict) else None
    name = _OF_TEXT.get(kind) if isinstance(kind, str) else None
    if name is None:
        raise InvalidInputError("The model reads input_text and input_json only.", field=f"{field}.type")
    return _string(part, name, field)


def _is_json(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") == "input_json"
        and isinstance(part.get("data"), dict | list)
    )


def _string(item: dict[str, Any], name: str, field: str) -> str:
    text = item.get(name)
    if not isinstance(text, str):
        raise InvalidInputError("Send a text.", field=f"{field}.{name}")
    return text
