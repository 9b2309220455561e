"""What of a version this server could never serve as it stands, told before anyone trains or asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts_store.tasks.template import parse_template
from server.api.services import Services
from server.tuning.document.recipe import SENTINEL_SETTING


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that cannot be served.

    Attributes:
        field: path within the manifest (`labels.3`, `settings.max_new_tokens`).
        setting: the server's setting that would have to change; None where no server of this base could serve
            it.
    """

    field: str
    message: str
    setting: str | None = None


def faults(
    services: Services, *, rows: int, template: str, labels: Sequence[str], settings: Mapping[str, Any]
) -> list[Fault]:
    """Every fault of a version with these values, those that no setting mends first.

    Costs milliseconds a thousand characters: not for the event loop.

    Args:
        rows: of the prompt.
        settings: the version's, checked by `check_settings`.

    Raises:
        NotReadyError: the base model is not loaded yet.
    """
    limits = services.limits()
    text = "".join(literal for literal, _ in parse_template(template).pieces)
    shortest = rows + len(services.vocabulary().encode(text)) + 1
    found = _of_labels(services, labels, settings)
    if shortest > limits.max_input_tokens:
        message = (
            f"With the template alone an input has {shortest} tokens, and this server takes "
            f"{limits.max_input_tokens}: it cuts or refuses every text. Shorten the template, or the "
            "operator raises input_lengths."
        )
        found.append(Fault("template", message, "input_lengths"))
    else:
        found += _of_settings(services, shortest, settings)
    return sorted(found, key=lambda fault: fault.setting is not None)


def _of_labels(services: Services, labels: Sequence[str], settings: Mapping[str, Any]) -> list[Fault]:
    if len(labels) == 1:
        message = "One label is no choice: send two or more, or none for free text."
        return [Fault("labels", message)]
    vocabulary, longest_label = services.vocabulary(), services.limits().max_target_tokens
    found: list[Fault] = []
    first_with: dict[tuple[int, ...], int] = {}
    longest, place = 0, 0
    for index, label in enumerate(labels):
        ids = tuple(vocabulary.encode(label))
        if not ids:
            message = "The label has no tokens in the model's vocabulary: give it a text."
            found.append(Fault(f"labels.{index}", message))
        elif ids in first_with:
            message = f"The label has the same tokens as label {first_with[ids]}: the model cannot tell them."
            found.append(Fault(f"labels.{index}", message))
        first_with.setdefault(ids, index)
        if len(ids) > longest:
            longest, place = len(ids), index
    start = settings.get(SENTINEL_SETTING) is True
    tokens = longest + 1 + start
    if labels and tokens > longest_label:
        message = (
            f"Label {place} has {tokens} tokens with {'<extra_id_0> and ' if start else ''}'</s>', and this "
            f"server ranks labels of at most {longest_label}: shorten it, or the operator raises "
            "score_buckets."
        )
        found.append(Fault(f"labels.{place}", message, "score_buckets"))
    most = services.settings.max_labels
    if len(labels) > most:
        message = (
            f"There are {len(labels)} labels, and this server ranks at most {most}: send fewer, or the "
            "operator raises max_labels."
        )
        found.append(Fault("labels", message, "max_labels"))
    return found


def _of_settings(services: Services, shortest: int, settings: Mapping[str, Any]) -> list[Fault]:
    """Defaults that do not fit even after the shortest input."""
    limits = services.limits()
    n, beams = settings.get("n") or 1, settings.get("num_beams") or 1
    slots = max(n, beams)
    room = limits.new_tokens(shortest, slots)
    if room == 0:
        name = "n" if n >= beams else "num_beams"
        message = (
            f"{name} is {slots}, and on this server at most {limits.group(shortest)} sequences run together: "
            "lower it, or the operator gives blocks more slots."
        )
        return [Fault(f"settings.{name}", message, "blocks")]
    asked, floor = settings.get("max_new_tokens"), settings.get("min_new_tokens") or 0
    if asked is not None and asked > room:
        message = (
            f"max_new_tokens is {asked}, and the blocks of this server hold at most {room} new tokens after "
            f"{shortest} tokens of prompt and template: lower it, or the operator raises blocks."
        )
        return [Fault("settings.max_new_tokens", message, "blocks")]
    usual = min(services.settings.default_max_new_tokens, room)
    if asked is None and floor > usual:
        setting = "default_max_new_tokens" if floor <= room else "blocks"
        message = (
            f"min_new_tokens is {floor}, and without max_new_tokens this server writes {usual}: send "
            f"max_new_tokens too, or the operator raises {setting}."
        )
        return [Fault("settings.min_new_tokens", message, setting)]
    return []
