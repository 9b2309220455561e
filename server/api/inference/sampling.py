"""How one item's tokens are chosen: the request's settings over the version's over the server's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from server.api.inference.calls import Call
from server.api.inference.items import Item
from server.api.inference.prepare import answer_start
from server.api.schemas.inference import GenerationSettings
from server.engine.sampling import Sampling, UnfitSettingsError, check_together, over_defaults
from server.errors import InvalidInputError
from server.tuning.document.recipe import SENTINEL_SETTING
from server.validation import validation_error


def check_default_settings(settings: Mapping[str, Any], field: str = "settings") -> None:
    """Refuse a version's default settings that no request could use. Raises InvalidInputError."""
    own = dict(settings)
    if not isinstance(own.pop(SENTINEL_SETTING, False), bool):
        raise InvalidInputError(f"{SENTINEL_SETTING} is true or false.", field=f"{field}.{SENTINEL_SETTING}")
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


def sampling_for(call: Call, item: Item, defaults: Mapping[str, Any]) -> Sampling:
    """Checked sampling of one prepared item. What its answer begins with comes on top of what is asked for.

    Args:
        defaults: of the version.

    Raises:
        InvalidInputError: a value does not fit the others or the compiled shapes; names the first setting to
            blame that was sent, else the version whose default it is.
    """
    settings = over_defaults(item.settings, defaults)
    try:
        check_together(settings)
        usual = call.services.settings.default_max_new_tokens
        new_tokens, room = call.serving.limits.new_tokens_for(settings, item.tokens, usual)
    except UnfitSettingsError as unfit:
        raise _refused(item, unfit) from None
    start = len(answer_start(call.serving.vocabulary, item.version))
    most, floor = min(new_tokens + start, room), settings.get("min_new_tokens", 0)
    settings["max_new_tokens"] = most
    settings["min_new_tokens"] = min(floor + start, most) if floor else 0
    if "seed" not in settings:
        settings["seed"] = secrets.randbits(32)
    return Sampling.of(settings)


def _refused(item: Item, unfit: UnfitSettingsError) -> InvalidInputError:
    for name in unfit.names:
        if name in item.paths:
            return InvalidInputError(unfit.message, field=item.paths[name])
    return InvalidInputError(
        f"{unfit.message} The version's own settings say so: send others, or use another version.",
        field=item.task_field,
    )
