"""From OpenAI's bodies to native items, prepared for the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from chorus_server.api.inference.calls import Call, prepared_items
from chorus_server.api.inference.items import Item, sent_settings
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.openai.conversation import template_value, unused_parts
from chorus_server.api.openai.model_names import model_id, reference_of
from chorus_server.api.schemas.openai.asking import OpenAIBody
from chorus_server.api.schemas.openai.messages import Conversation
from chorus_server.engine.sampling import over_defaults
from chorus_server.errors import InvalidInputError
from prompts_store.records import PromptVersion

_SEEDS = 1 << 32


def items_of(
    call: Call,
    body: OpenAIBody,
    conversations: Sequence[Conversation],
    *,
    max_tokens: str,
    logprobs: bool = False,
    truncate: bool = False,
    more: Mapping[str, tuple[Any, str]] = MappingProxyType({}),
) -> list[Item]:
    """An item for each conversation, with the settings that the body has by native names. One answer is made
    where the body asks for no number, whatever the version's own: clients read the first, or unpack one.

    Args:
        max_tokens: the field of the body that holds the most new tokens.
        logprobs: whether the tokens' log probabilities are needed.
        truncate: cut an input that is too long, even if the body does not say `truncate`.
        more: further settings by native name, each with the field that it comes from; None is none.
    """
    settings, paths = sent_settings(body, "")
    for name, (value, field) in {"max_new_tokens": (getattr(body, max_tokens), max_tokens), **more}.items():
        if value is not None:
            settings[name], paths[name] = value, field
    settings.setdefault("n", 1)
    if "seed" in settings:
        settings["seed"] %= _SEEDS
    reference = reference_of(call.services, body.model)
    return [
        Item(
            reference,
            {"text": conversation.text, "system": conversation.system, "history": conversation.history},
            conversation.field,
            "model",
            truncate or bool(body.truncate),
            logprobs,
            settings,
            paths,
            body.special_tokens,
        )
        for conversation in conversations
    ]


@asynccontextmanager
async def asked_items(
    call: Call, items: Sequence[Item], conversations: Sequence[Conversation]
) -> AsyncIterator[list[Item]]:
    """The items with their templates filled, prepared and held until the block ends; see `prepared_items`.

    These clients send a number of tokens that suits other models, so one above what fits means what fits.
    """
    by_field = {each.field: each for each in conversations}

    def fill(item: Item, version: PromptVersion | None) -> Item:
        conversation = by_field[item.input_field]
        _check_unused(call, conversation, version)
        return replace(item, value=template_value(conversation, version))

    async with prepared_items(call, items, fill) as prepared:
        yield await in_turns(lambda item: _within_room(call, item), prepared)


def warnings_of(conversation: Conversation, item: Item) -> list[str]:
    """A sentence for each part of the conversation that the item's template has no field for."""
    whose = "the base model has no template" if item.version is None else f"{item.task_name} has no field"
    return [
        f"{_PARTS[name]} ignored: {whose}" + ("." if item.version is None else f" {{{name}}}.")
        for name in unused_parts(conversation, item.version)
    ]


def shown_model(call: Call, item: Item) -> str:
    """The model that answers an item, by name."""
    version = item.version
    if version is None:
        return call.serving.base.name
    return model_id(version.tenant, version.task, version.number, call.principal.tenant)


_PARTS = {"system": "The system message was", "history": "The earlier messages were"}


def _check_unused(call: Call, conversation: Conversation, version: PromptVersion | None) -> None:
    unused = unused_parts(conversation, version) if call.services.settings.strict_messages else []
    if unused:
        raise InvalidInputError(
            f"The model's template has no field {{{unused[0]}}}, and this server refuses what it would have "
            "to ignore: leave it out, or use a version with this field.",
            field=conversation.field.partition(".")[0],
        )


def _within_room(call: Call, item: Item) -> Item:
    asked = item.settings.get("max_new_tokens", 0)
    defaults = {} if item.version is None else item.version.manifest.settings
    settings = over_defaults(item.settings, defaults)
    slots = max(settings.get("n", 1), settings.get("num_beams", 1))
    room = call.serving.limits.new_tokens(item.tokens, slots)
    if not 0 < room < asked:
        return item
    return replace(item, settings={**item.settings, "max_new_tokens": room})
