"""A conversation as the value of a version's template."""

from __future__ import annotations

from collections.abc import Sequence

from chorus_server.api.http.json_body import parse_json
from chorus_server.api.inference.items import Value
from chorus_server.api.inference.prepare import MAX_INPUT_CHARACTERS
from chorus_server.api.schemas.openai.messages import Conversation
from chorus_server.errors import InvalidInputError
from chorus_server.model.utf8 import characters
from chorus_server.tuning.data.conversations import HISTORY, SYSTEM
from prompts_store.records import PromptVersion
from prompts_store.tasks.template import parse_template


def template_value(conversation: Conversation, version: PromptVersion | None) -> Value:
    """What fills the version's template. Raises InvalidInputError if it has several fields, and the text is
    no JSON object of them."""
    fields = _fields_of(version)
    if len(fields) < 2:
        return conversation.text
    more = {SYSTEM: conversation.system, HISTORY: conversation.history}
    own = [name for name in fields if name not in more]
    beside = {name: more[name] for name in fields if name in more}
    if len(own) == 1:
        return {own[0]: conversation.text} | beside
    return _object(conversation, own or fields) | (beside if own else {})


def unused_parts(conversation: Conversation, version: PromptVersion | None) -> list[str]:
    """The fields that the version's template would need for all of the conversation, and does not have."""
    fields = _fields_of(version)
    given = {SYSTEM: conversation.system, HISTORY: conversation.history}
    return [name for name, text in given.items() if text and (name not in fields or len(fields) < 2)]


def _fields_of(version: PromptVersion | None) -> Sequence[str]:
    return () if version is None else parse_template(version.manifest.template).fields


def _object(conversation: Conversation, names: Sequence[str]) -> dict[str, bytes]:
    """The text as a JSON object. The template says which fields it must have."""
    found, text = None, conversation.text
    if text.lstrip().startswith(b"{") and characters(text) <= MAX_INPUT_CHARACTERS:
        found = parse_json(text, conversation.field)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        example = ", ".join(f'"{name}": "..."' for name in names)
        raise InvalidInputError(
            f"The task's template has several fields: send the text of a JSON object, {{{example}}}.",
            field=conversation.field,
        )
    return {name: value.encode() for name, value in found.items()}
