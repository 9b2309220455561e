"""Finds what this server could never serve of a version, before anybody trains or asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.schemas.common import MAX_LABELS, USUAL_NEW_TOKENS
from chorus_server.api.services import Services
from chorus_server.engine.limits import target_too_long
from chorus_server.engine.sampling import SETTINGS, UnfitSettingsError
from chorus_server.tuning.data.cutting import Truncation, misplaced
from chorus_server.tuning.data.normalizers import unsuited
from chorus_server.tuning.document.recipe import (
    NORMALIZER_SETTING,
    SENTINEL_SETTING,
    SPECIAL_TOKENS_SETTING,
    TRUNCATION_SETTING,
)
from prompts_store.tasks.template import parse_template


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that cannot be served.

    Attributes:
        field: path within the manifest (`labels.3`, `settings.max_new_tokens`).
        here: whether it is only this server, as its operator set it up, or only with the version's own labels
            or settings; else no server of this base could serve it.
    """

    field: str
    message: str
    here: bool = False


def faults(
    services: Services, *, rows: int, template: str, labels: Sequence[str], settings: Mapping[str, Any]
) -> list[Fault]:
    """Every fault of a version with these values. Those that every server has come first.

    Takes milliseconds for a thousand characters, so it must not run on the event loop.

    Args:
        rows: number of rows of the prompt.
        settings: the version's settings, checked by `check_default_settings`.

    Raises:
        NotReadyError: the base model is not loaded yet.
    """
    limits, special = services.limits(), settings.get(SPECIAL_TOKENS_SETTING) is True
    text = "".join(literal for literal, _ in parse_template(template).pieces)
    shortest = rows + len(services.vocabulary().encode(text, allow_sentinels=special)) + 1
    found = _of_labels(services, labels, settings)
    truncation = Truncation.of(settings)
    if truncation is not None and (problem := misplaced(template, truncation)) is not None:
        found.append(Fault(f"settings.{TRUNCATION_SETTING}.field", problem))
    normalizer = settings.get(NORMALIZER_SETTING)
    if normalizer is not None and (problem := unsuited(template, normalizer)) is not None:
        found.append(Fault(f"settings.{NORMALIZER_SETTING}", problem))
    last = max(map(int, settings.get("logit_bias") or {}), default=0)
    if last >= services.vocabulary().size:
        problem = (
            f"There is no token {last}: the vocabulary has ids from 0 to {services.vocabulary().size - 1}."
        )
        found.append(Fault("settings.logit_bias", problem))
    if shortest > limits.max_input_tokens:
        message = (
            f"The template alone makes an input of {shortest} tokens, and this server takes "
            f"{limits.max_input_tokens}: it cuts or refuses every text. Shorten the template, or the "
            "operator raises input_lengths."
        )
        found.append(Fault("template", message, here=True))
    else:
        found += _of_settings(services, shortest, settings)
    return sorted(found, key=lambda fault: fault.here)


def _of_labels(services: Services, labels: Sequence[str], settings: Mapping[str, Any]) -> list[Fault]:
    if len(labels) == 1:
        message = "One label leaves no choice: send two or more, or none for free text."
        return [Fault("labels", message)]
    vocabulary, longest_label = services.vocabulary(), services.limits().max_target_tokens
    special = settings.get(SPECIAL_TOKENS_SETTING) is True
    found: list[Fault] = []
    first_with: dict[tuple[int, ...], int] = {}
    longest, place = 0, 0
    for index, label in enumerate(labels):
        ids = tuple(vocabulary.encode(label, allow_sentinels=special))
        if not ids:
            message = "The label has no tokens in the model's vocabulary: give it a text."
            found.append(Fault(f"labels.{index}", message))
        elif ids in first_with:
            same = f"The label has the same tokens as label {first_with[ids]}"
            message = f"{same}: the model cannot tell them apart."
            found.append(Fault(f"labels.{index}", message))
        first_with.setdefault(ids, index)
        if len(ids) > longest:
            longest, place = len(ids), index
    start = settings.get(SENTINEL_SETTING) is True
    tokens = longest + 1 + start
    if labels and tokens > longest_label:
        problem = target_too_long(str(tokens), longest_label, "<extra_id_0> and " if start else "")
        message = f"Label {place} {problem}: shorten it, or the operator raises score_buckets."
        found.append(Fault(f"labels.{place}", message, here=True))
    elif labels and (together := services.limits().too_many_targets(tuple(first_with))):
        message = f"The labels {together}, or the operator raises score_buckets."
        found.append(Fault("labels", message, here=True))
    if len(labels) > MAX_LABELS:
        message = f"There are {len(labels)} labels, and a server ranks at most {MAX_LABELS}: send fewer."
        found.append(Fault("labels", message, here=True))
    return found


def _of_settings(services: Services, shortest: int, settings: Mapping[str, Any]) -> list[Fault]:
    """Default settings that do not fit even the shortest input."""
    limits = services.limits()
    given = {name: settings[name] for name in SETTINGS if settings.get(name) is not None}
    asked = given.get("max_new_tokens")
    try:
        limits.new_tokens_for(given, shortest, USUAL_NEW_TOKENS)
        return []
    except UnfitSettingsError as unfit:
        name, message = unfit.names[0], unfit.message
    if name == "max_new_tokens":
        return [
            Fault("settings.max_new_tokens", f"{message} Lower it, or the operator raises blocks.", here=True)
        ]
    if name != "min_new_tokens":
        advice = "Lower it, or the operator gives blocks more slots."
        return [Fault(f"settings.{name}", f"{message} {advice}", here=True)]
    if asked is not None:  # a request may send its own value of either
        return []
    room = limits.new_tokens(shortest, max(given.get("n", 1), given.get("num_beams", 1)))
    otherwise = "" if given["min_new_tokens"] <= room else ", or the operator raises blocks"
    advice = f"Send max_new_tokens too{otherwise}."
    return [Fault("settings.min_new_tokens", f"{message} {advice}", here=True)]
