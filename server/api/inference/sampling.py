"""How one item's tokens are chosen: the request's settings over the version's over the server's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from server.api.http.errors import validation_error
from server.api.inference.limits import Limits
from server.api.schemas.inference import GenerationSettings
from server.engine.sampling import Sampling
from server.errors import InvalidInputError
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
    _check_together(merged, merged.get("n", 1), lambda message, *names: _refused(message, field, names[0]))


@dataclass(frozen=True, slots=True)
class Chosen:
    """An item's settings, and who gave them.

    Attributes:
        values: by name.
        sent: dotted path of those that the request gave; the others are the version's defaults.
        version_field: the field of the request that named the version.
    """

    values: dict[str, Any]
    sent: Mapping[str, str]
    version_field: str

    def refused(self, message: str, *names: str) -> InvalidInputError:
        """The error names the first of these settings that was sent; else the version, whose they are."""
        for name in names:
            if name in self.sent:
                return InvalidInputError(message, field=self.sent[name])
        return InvalidInputError(
            f"{message} The version's own settings say so: send others, or use another version.",
            field=self.version_field,
        )


def merge_settings(
    request: GenerationSettings,
    beside: GenerationSettings | None,
    version: Mapping[str, Any],
    prefix: str,
    version_field: str,
) -> Chosen:
    """Settings that are given: an item's own, then those beside `requests`, then the version's.

    Args:
        prefix: dotted path of the item, with its dot, or empty.
        version_field: dotted path of what named the version.
    """
    merged = {name: version[name] for name in NAMES if version.get(name) is not None}
    asked: dict[str, str] = {}
    for layer, path in ((beside, ""), (request, prefix)):
        if layer is not None:
            given = {name: getattr(layer, name) for name in NAMES if getattr(layer, name) is not None}
            merged |= given
            asked |= {name: path + name for name in given}
    # A request that asks for one kind of search drops the version's default for the other kind.
    if "num_beams" in asked and merged.get("num_beams", 1) > 1 and "temperature" not in asked:
        merged.pop("temperature", None)
    if merged.get("temperature") and "temperature" in asked and "num_beams" not in asked:
        merged.pop("num_beams", None)
    return Chosen(merged, asked, version_field)


def sampling_for(
    chosen: Chosen,
    limits: Limits,
    input_tokens: int,
    default_new_tokens: int,
    start_tokens: int = 0,
) -> Sampling:
    """Checked sampling of one item.

    Args:
        chosen: of `merge_settings`.
        input_tokens: length of the prepared input; longer inputs may leave room for fewer new tokens.
        start_tokens: tokens before the answer's text (`answer_start`), on top of those asked for.

    Raises:
        InvalidInputError: a value does not fit the others or the compiled shapes; names it where it was
            sent, else the version whose default it is.
    """
    settings = chosen.values
    n = settings.get("n", 1)
    _check_together(settings, n, chosen.refused)
    slots = max(settings.get("num_beams", 1), n)
    room = limits.new_tokens(input_tokens, slots)
    group = ("n", "num_beams") if n >= settings.get("num_beams", 1) else ("num_beams", "n")
    if room == 0:
        raise chosen.refused(
            f"{group[0]} is {slots}, and at most {limits.group(input_tokens)} sequences run together after "
            f"an input of {input_tokens} tokens.",
            *group,
        )
    asked = settings.get("max_new_tokens")
    if asked is not None and asked > room:
        too_many = asked <= limits.new_tokens(input_tokens)  # and would fit one sequence
        raise chosen.refused(
            f"max_new_tokens is {asked}, the limit after an input of {input_tokens} tokens is {room}"
            f"{f' for {slots} sequences together' if too_many else ''}.",
            "max_new_tokens",
            *(group if too_many else ()),
        )
    new_tokens = asked if asked is not None else min(default_new_tokens, room)
    floor = settings.get("min_new_tokens", 0)
    if floor > new_tokens:
        raise chosen.refused(
            f"min_new_tokens is {floor}, more than the {new_tokens} of max_new_tokens.",
            "min_new_tokens",
            "max_new_tokens",
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


def _check_together(settings: Mapping[str, Any], n: int, refused: Callable[..., InvalidInputError]) -> None:
    """Refuse values that do not go together; `refused(message, *names)` makes the error."""
    beams = settings.get("num_beams", 1)
    if beams > 1 and settings.get("temperature", 0) > 0:
        message = "Beam search needs temperature 0: drop temperature, or set num_beams to 1."
        raise refused(message, "temperature", "num_beams")
    if beams > 1 and n > beams:
        message = f"n is {n}, more than the {beams} beams: raise num_beams or lower n."
        raise refused(message, "n", "num_beams")
    if beams > 1 and settings.get("stop"):
        message = "Beam search takes no stop texts: drop stop, or set num_beams to 1."
        raise refused(message, "stop", "num_beams")
    if beams == 1 and n > 1 and settings.get("temperature", 0) == 0:
        message = "n sequences of greedy decoding are all the same: set temperature above 0, or num_beams."
        raise refused(message, "n", "temperature", "num_beams")


def _refused(message: str, path: str, name: str) -> InvalidInputError:
    return InvalidInputError(message, field=f"{path}.{name}")
