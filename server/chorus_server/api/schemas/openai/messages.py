"""Messages read: the last one, what came before, and what the system says.

A row of messages in a fine-tuning file becomes the same parts; see `tuning.data.conversations`. All of this
is done where the body is checked, off the event loop if it is long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.conversations import history_text

_SYSTEM_ROLES = ("system", "developer")
_ROLES = ("user", "assistant", "tool", "function")
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is asked; its texts are UTF-8.

    Attributes:
        text: the last message, the user's.
        field: dotted path of its text.
        system: messages of the system, and of a developer, a line each; empty without any.
        history: the messages before the last, a line each as in `user: Hello`.
    """

    text: bytes
    field: str
    system: bytes = b""
    history: bytes = b""


def conversation_of(messages: Any, field: str) -> Conversation:
    """The conversation in a list of messages.

    Args:
        field: the name of the list.

    Raises:
        InvalidInputError: names the message or part that is not text, or the last one if it is not the
            user's.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidInputError("Send a list of one message or more.", field=field)
    said: list[str] = []
    turns: list[tuple[str, str]] = []
    for at, message in enumerate(messages):
        place = f"{field}.{at}"
        if not isinstance(message, dict):
            raise InvalidInputError("Send an object with a role and content.", field=place)
        role = message.get("role")
        if message.get("type", "message") != "message":
            raise InvalidInputError("Send messages only: the server calls no tools.", field=f"{place}.type")
        if role not in _SYSTEM_ROLES and role not in _ROLES:
            raise InvalidInputError(
                "The role is system, developer, user, assistant or tool.", field=f"{place}.role"
            )
        text = _text(message, place)
        if role in _SYSTEM_ROLES:
            said.append(text)
        else:
            turns.append((str(role), text))
    last = len(messages) - 1
    if not turns or messages[last].get("role") != "user":
        raise InvalidInputError(
            "The last message is the one that is answered: it is the user's.", field=f"{field}.{last}.role"
        )
    system, history = "\n".join(said), history_text(turns[:-1])
    return Conversation(turns[-1][1].encode(), f"{field}.{last}.content", system.encode(), history.encode())


def _text(message: dict[str, Any], place: str) -> str:
    """A message's text; its parts are joined. An assistant that called a tool may have said nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message.get("role") == "assistant":
        refusal = message.get("refusal")
        return refusal if isinstance(refusal, str) else ""
    if not isinstance(content, list) or not content:
        raise InvalidInputError("Send a text, or a list of text parts.", field=f"{place}.content")
    return "".join(_part(part, f"{place}.content.{at}") for at, part in enumerate(content))


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _TEXT_PARTS:
        raise InvalidInputError(
            "The model reads text only: send parts of type text, no images, sounds or files.",
            field=f"{place}.type",
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidInputError("Send a text.", field=f"{place}.text")
    return text
