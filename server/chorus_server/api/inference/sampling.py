"""How an item's tokens are chosen: settings from the request, else from the version, else from the server."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.prepare import answer_start
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.schemas.common import USUAL_NEW_TOKENS
from chorus_server.api.schemas.inference import GenerationSettings
from chorus_server.engine.requests import GenerateRequest
from chorus_server.engine.sampling import Sampling, UnfitSettingsError, check_together, over_defaults
from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.cutting import check_truncation
from chorus_server.tuning.data.normalizers import check_normalizer
from chorus_server.tuning.document.recipe import (
    NORMALIZER_SETTING,
    SENTINEL_SETTING,
    SPECIAL_TOKENS_SETTING,
    TRUNCATION_SETTING,
)
from chorus_server.validation import validation_error


def check_default_settings(settings: Mapping[str, Any], field: str = "settings") -> None:
    """Refuse default settings of a version that no request could use. Raises InvalidInputError."""
    own = dict(settings)
    if not isinstance(own.pop(SENTINEL_SETTING, False), bool):
        raise InvalidInputError(f"{SENTINEL_SETTING} is true or false.", field=f"{field}.{SENTINEL_SETTING}")
    if not isinstance(own.pop(SPECIAL_TOKENS_SETTING, False), bool):
        raise InvalidInputError(
            f"{SPECIAL_TOKENS_SETTING} is true or false.", field=f"{field}.{SPECIAL_TOKENS_SETTING}"
        )
    if TRUNCATION_SETTING in own:
        check_truncation(own.pop(TRUNCATION_SETTING), f"{field}.{TRUNCATION_SETTING}")
    if NORMALIZER_SETTING in own:
        check_normalizer(own.pop(NORMALIZER_SETTING), f"{field}.{NORMALIZER_SETTING}")
    try:
        parsed = GenerationSettings.model_validate(own)
    except ValidationError as error:
        problem = validation_error(error)
        raise InvalidInputError(
            problem.message, field=f"{field}.{problem.field}", code=problem.code
        ) from None
    try:
        check_together({name: value for name, value in parsed if value is not None})
    except UnfitSettingsError as unfit:
        raise InvalidInputError(unfit.message, field=f"{field}.{unfit.names[0]}") from None


async def engine_requests(call: Call, items: Sequence[Item], *, stream: bool) -> list[GenerateRequest]:
    """The engine's request for each item. All are made before any is submitted."""

    def request(index: int, item: Item) -> GenerateRequest:
        defaults = item.version.manifest.settings if item.version is not None else {}
        sampling = sampling_for(call, item, defaults)
        return GenerateRequest(call.origin(index, item), item.input, sampling, stream)

    return await in_turns(request, range(len(items)), items)


def sampling_for(call: Call, item: Item, defaults: Mapping[str, Any]) -> Sampling:
    """The checked sampling settings of a prepared item. Tokens that its answer must begin with are added to
    what it asks for.

    Args:
        defaults: the version's default settings.

    Raises:
        InvalidInputError: a value does not fit the others or the compiled shapes. The error names the first
            setting at fault that the request sent, else the version that has it as a default.
    """
    settings = over_defaults(item.settings, defaults)
    try:
        check_together(settings)
        limits = call.serving.limits
        new_tokens, room = limits.new_tokens_for(settings, item.tokens, USUAL_NEW_TOKENS)
    except UnfitSettingsError as unfit:
        raise _refused(item, unfit) from None
    _check_ids(settings.get("logit_bias", {}), call.serving.vocabulary.size, item)
    start = len(answer_start(call.serving.vocabulary, item.version))
    most, floor = min(new_tokens + start, room), settings.get("min_new_tokens", 0)
    settings["max_new_tokens"] = most
    settings["min_new_tokens"] = min(floor + start, most) if floor else 0
    if "seed" not in settings:
        settings["seed"] = secrets.randbits(32)
    return Sampling.of(settings)


def _check_ids(bias: Mapping[str, Any], size: int, item: Item) -> None:
    for id in bias:
        if int(id) >= size:
            raise _refused(
                item,
                UnfitSettingsError(
                    f"logit_bias names token {id}, and the vocabulary has ids from 0 to {size - 1}.",
                    "logit_bias",
                ),
            )


def _refused(item: Item, unfit: UnfitSettingsError) -> InvalidInputError:
    for name in unfit.names:
        if name in item.paths:
            return InvalidInputError(unfit.message, field=item.paths[name])
    return InvalidInputError(
        f"{unfit.message} The setting comes from the version: send another value, or use another version.",
        field=item.task_field,
    )
