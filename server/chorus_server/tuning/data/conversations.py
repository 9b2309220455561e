"""Rows in the forms in which hosted models are fine-tuned get the columns that a template names.

    {"messages": [...]}                  text, label; system and history, which may be empty
    {"prompt": ..., "completion": ...}   text, label

The last message is the assistant's and becomes the label, the user's before it the text. What stands before
those is the history, one message a line as in `user: Hello`; messages of the system, or of a developer, are
joined in `system`. A row's own columns of these names are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

TEXT, LABEL, SYSTEM, HISTORY = "text", "label", "system", "history"
MESSAGES = "messages"

_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": "user", "assistant": "assistant"}
_CALLS = ("tools", "functions")
_CALLED = ("tool_calls", "function_call", "audio")


class ConversationError(ValueError):
    """A row is no conversation that a prompt can be tuned on; the message names the field in the row."""


def with_columns(record: dict[str, Any]) -> dict[str, Any]:
    """The row, with columns for its messages or its prompt and completion; any other row as it is.

    Raises:
        ConversationError: its messages cannot be read.
    """
    if is_conversation(record):
        return {**_of_messages(record), **record}
    if "prompt" in record and "completion" in record:
        target = record["completion"]
        return {
            TEXT: record["prompt"],
            LABEL: target.strip() if isinstance(target, str) else target,
            **record,
        }
    return record


def is_conversation(record: Mapping[str, Any]) -> bool:
    """Whether a row holds messages. A list of texts is a column of another kind: accepted answers."""
    found = record.get(MESSAGES)
    return isinstance(found, list) and (not found or any(isinstance(each, dict) for each in found))


def earlier_targets(record: Mapping[str, Any]) -> bool:
    """Whether a row has an earlier message of the assistant that other trainers would learn too."""
    if not is_conversation(record):
        return False
    said = [each for each in record[MESSAGES][:-1] if each.get("role") == "assistant"]
    return any(each.get("weight") != 0 for each in said)


def history_text(turns: Iterable[tuple[str, str]]) -> str:
    """Earlier messages, as (role, text), one a line: what a template's `{history}` is filled with."""
    return "\n".join(f"{role}: {text}" for role, text in turns)


def _of_messages(record: Mapping[str, Any]) -> dict[str, Any]:
    for name in _CALLS:
        if record.get(name):
            _refuse(name, "tools cannot be called; leave it out")
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    messages = record[MESSAGES]
    for place, message in enumerate(messages):
        role, text = _message(f"{MESSAGES}.{place}", message)
        if role == SYSTEM:
            system.append(text)
        else:
            turns.append((role, text))
    last = f"{MESSAGES}.{len(messages) - 1}" if messages else MESSAGES
    if not turns or turns[-1][0] != "assistant" or _ROLES[messages[-1]["role"]] != "assistant":
        _refuse(last, "a row ends with the assistant's message that is to be learned")
    if len(turns) < 2 or turns[-2][0] != "user":
        _refuse(last, "before the assistant's last message there must be a user's")
    if messages[-1].get("weight") == 0:
        _refuse(f"{last}.weight", "is 0, and the assistant's last message is the one that is learned")
    return {
        TEXT: turns[-2][1],
        LABEL: turns[-1][1].strip(),
        SYSTEM: "\n".join(system),
        HISTORY: history_text(turns[:-2]),
    }


def _message(at: str, message: Any) -> tuple[str, str]:
    """What a message is, `system`, `user` or `assistant`, and its text."""
    if not isinstance(message, dict):
        _refuse(at, 'must be an object such as {"role": "user", "content": "..."}')
    role = message.get("role")
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        _refuse(f"{at}.role", f"must be one of {', '.join(_ROLES)}, not {ascii(role)[:40]}")
    for name in _CALLED:
        if message.get(name):
            _refuse(f"{at}.{name}", "only text can be learned; leave it out")
    weight = message.get("weight")
    if weight is not None and (weight not in (0, 1) or known != "assistant"):
        _refuse(f"{at}.weight", "must be 0 or 1, and stand on an assistant's message")
    return known, _content(f"{at}.content", message.get("content"))


def _content(at: str, content: Any) -> str:
    """A message's text. In parts, they are joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        _refuse(at, "must be a text")
    parts = []
    for place, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            _refuse(f"{at}.{place}", 'must be a part such as {"type": "text", "text": "..."}')
        parts.append(text)
    return "".join(parts)


def _refuse(at: str, message: str) -> NoReturn:
    raise ConversationError(f"{at}: {message}")
