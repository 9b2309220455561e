"""Messages as what a version's template can take: the last one, what came before, and what the system says.

A row of messages in a fine-tuning file becomes the same fields; see `tuning.data.conversations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.http.json_body import parse_json
from chorus_server.api.inference.items import Value
from chorus_server.api.inference.prepare import MAX_INPUT_CHARACTERS
from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.conversations import HISTORY, SYSTEM, history_text
from prompts_store.records import PromptVersion
from prompts_store.tasks.template import parse_template

_SYSTEM_ROLES = ("system", "developer")
_ROLES = ("user", "assistant", "tool", "function")
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is asked.

    Attributes:
        text: the last message, the user's.
        field: dotted path of its text.
        system: messages of the system, and of a developer, a line each; empty without any.
        history: the messages before the last, a line each as in `user: Hello`.
    """

    text: str
    field: str
    system: str = ""
    history: str = ""

    def value(self, version: PromptVersion | None) -> Value:
        """What fills the version's template. Raises InvalidInputError if it has several fields, and the text
        is no JSON object of them."""
        fields = () if version is None else parse_template(version.manifest.template).fields
        if len(fields) < 2:
            return self.text.encode()
        more = {SYSTEM: self.system.encode(), HISTORY: self.history.encode()}
        own = [name for name in fields if name not in more]
        beside = {name: more[name] for name in fields if name in more}
        if len(own) == 1:
            return {own[0]: self.text.encode()} | beside
        return self._fields(own or fields) | (beside if own else {})

    def unused(self, version: PromptVersion | None) -> list[str]:
        """The fields for what is in this conversation that the version's template does not have."""
        fields = () if version is None else parse_template(version.manifest.template).fields
        given = {SYSTEM: self.system, HISTORY: self.history}
        return [name for name, text in given.items() if text and (name not in fields or len(fields) < 2)]

    def _fields(self, names: Sequence[str]) -> dict[str, bytes]:
        """The text as a JSON object. The template says which fields it must have."""
        found = None
        if self.text.lstrip().startswith("{") and len(self.text) <= MAX_INPUT_CHARACTERS:
            found = parse_json(self.text.encode(), self.field)
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            example = ", ".join(f'"{name}": "..."' for name in names)
            raise InvalidInputError(
                f"The task's template has several fields: send the text of a JSON object, {{{example}}}.",
                field=self.field,
            )
        return {name: text.encode() for name, text in found.items()}


def conversation_of(messages: Sequence[dict[str, Any]], field: str, system: str = "") -> Conversation:
    """The conversation in a list of messages.

    Args:
        field: the name of the list.
        system: what the system says before them.

    Raises:
        InvalidInputError: names the message or part that is not text, or the last one if it is not the
            user's.
    """
    said = [system] if system else []
    turns: list[tuple[str, str]] = []
    for at, message in enumerate(messages):
        place = f"{field}.{at}"
        role, kind = message.get("role"), message.get("type") or "message"
        if kind != "message":
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
    return Conversation(turns[-1][1], f"{field}.{last}.content", "\n".join(said), history_text(turns[:-1]))


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
