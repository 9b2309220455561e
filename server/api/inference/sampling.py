"""How one item's tokens are chosen: the request's settings over the version's over the server's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from server.api.http.errors import validation_error
from server.api.inference.limits import Limits
from server.api.schemas.inference import GenerationSettings
from server.engine.requests import Sampling
from server.errors import ChorusError, InvalidInputError
from server.tuning.recipe import SENTINEL_SETTING

NAMES = tuple(GenerationSettings.model_fields)


def check_settings(settings: Mapping[str, Any], field: str = "settings") -> None:
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
    merged = {name: value for name, value in parsed if value is not None}
    _check_together(merged, merged.get("n", 1), field)


def merge_settings(
    request: GenerationSettings, beside: GenerationSettings | None, version: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings that are given: an item's own, then those beside `requests`, then the version's."""
    merged = {name: version[name] for name in NAMES if version.get(name) is not None}
    for layer in (beside, request):
        if layer is not None:
            merged |= {name: getattr(layer, name) for name in NAMES if getattr(layer, name) is not None}
    # A request that asks for one kind of search drops the version's default for the other kind.
    asked = {
        name for layer in (beside, request) if layer for name in NAMES if getattr(layer, name) is not None
    }
    if "num_beams" in asked and merged.get("num_beams", 1) > 1 and "temperature" not in asked:
        merged.pop("temperature", None)
    if merged.get("temperature") and "temperature" in asked and "num_beams" not in asked:
        merged.pop("num_beams", None)
    return merged


def sampling_for(
    settings: Mapping[str, Any],
    limits: Limits,
    input_tokens: int,
    default_new_tokens: int,
    prefix: str,
    start_tokens: int = 0,
) -> Sampling:
    """Checked sampling of one item.

    Args:
        settings: of `merge_settings`.
        input_tokens: length of the prepared input; longer inputs may leave room for fewer new tokens.
        prefix: dotted path of the item, with its dot, or empty.
        start_tokens: tokens before the answer's text (`answer_start`), on top of those asked for.

    Raises:
        InvalidInputError: a value does not fit the others or the compiled shapes; names it.
    """
    n = settings.get("n", 1)
    _check_together(settings, n, prefix.rstrip("."))
    slots = max(settings.get("num_beams", 1), n)
    room = limits.new_tokens(input_tokens, slots)
    if room == 0:
        name = "n" if n >= settings.get("num_beams", 1) else "num_beams"
        raise InvalidInputError(
            f"{name} is {slots}, and at most {limits.group(input_tokens)} sequences run together after an "
            f"input of {input_tokens} tokens.",
            field=prefix + name,
        )
    asked = settings.get("max_new_tokens")
    if asked is not None and asked > room:
        raise InvalidInputError(
            f"max_new_tokens is {asked}, the limit after an input of {input_tokens} tokens is {room}.",
            field=prefix + "max_new_tokens",
        )
    new_tokens = asked if asked is not None else min(default_new_tokens, room)
    floor = settings.get("min_new_tokens", 0)
    if floor > new_tokens:
        raise InvalidInputError(
            f"min_new_tokens is {floor}, more than the {new_tokens} of max_new_tokens.",
            field=prefix + "min_new_tokens",
        )
    most = min(new_tokens + start_tokens, room)
    return Sampling(
        max_new_tokens=most,
        min_new_tokens=min(floor + start_tokens, most) if floor else 0,
        temperature=float(settings.get("temperature", 0.0)),
        top_k=settings.get("top_k", 0),
        top_p=float(settings.get("top_p", 1.0)),
        seed=settings["seed"] if "seed" in settings else secrets.randbits(32),
        num_beams=settings.get("num_beams", 1),
        length_penalty=float(settings.get("length_penalty", 0.6)),
        n=n,
        stop=tuple(settings.get("stop", ())),
    )


def _check_together(settings: Mapping[str, Any], n: int, path: str) -> None:
    beams = settings.get("num_beams", 1)

    def refuse(message: str, name: str) -> ChorusError:
        return InvalidInputError(message, field=f"{path}.{name}" if path else name)

    if beams > 1 and settings.get("temperature", 0) > 0:
        raise refuse(
            "Beam search needs temperature 0: drop temperature, or set num_beams to 1.", "temperature"
        )
    if beams > 1 and n > beams:
        raise refuse(f"n is {n}, more than the {beams} beams: raise num_beams or lower n.", "n")
    if beams > 1 and settings.get("stop"):
        raise refuse("Beam search takes no stop texts: drop stop, or set num_beams to 1.", "stop")
    if beams == 1 and n > 1 and settings.get("temperature", 0) == 0:
        raise refuse(
            "n sequences of greedy decoding are all the same: set temperature above 0, or num_beams.", "n"
        )
