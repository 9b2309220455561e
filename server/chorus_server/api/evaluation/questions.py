"""One question of a decision pack as a subject: which version answers it, and its values for the version's
labels."""

from __future__ import annotations

from collections.abc import Sequence

from chorus_server.errors import InvalidInputError
from prompts_store.records import PackEntry, PackVersion

_MOST_SHOWN = 8
_NO_LABEL = "no label: "


def entry_of(pack: PackVersion, question: str, field: str) -> PackEntry:
    """What a pack says of a question. InvalidInputError with `field`: nothing."""
    for entry in pack.entries:
        if entry.question == question:
            return entry
    known = ", ".join(ascii(entry.question)[:80] for entry in pack.entries[:_MOST_SHOWN])
    more = len(pack.entries) - _MOST_SHOWN
    others = f" and {more} more" if more > 0 else ""
    raise InvalidInputError(
        f"The pack {pack.tenant}/{pack.name}@{pack.number} has no question {ascii(question)[:80]}; it has "
        f"{known}{others}.",
        field=field,
    )


def version_of(entry: PackEntry) -> str:
    """The reference of the version that answers."""
    return f"{entry.tenant}/{entry.task}@{entry.version}"


def values_of(entry: PackEntry, labels: Sequence[str]) -> tuple[str, ...]:
    """The question's value of each of the version's labels that has one, in their order."""
    values = {label: value for value, label in entry.labels.items()}
    return tuple(values.get(label, label) for label in labels if label in values or label not in entry.labels)


def labels_of(entry: PackEntry, labels: Sequence[str], values: Sequence[str]) -> tuple[str, ...]:
    """The version's label of each value.

    Args:
        labels: of the version.

    Raises:
        InvalidInputError: a value has none; or two have the same. Field `labels`.
    """
    found = [entry.labels.get(value, value) for value in values]
    for place, (value, label) in enumerate(zip(values, found, strict=True)):
        shown, whose = ascii(value)[:80], f"question {ascii(entry.question)[:80]} of {version_of(entry)}"
        if label not in labels:
            known = ", ".join(ascii(each)[:80] for each in values_of(entry, labels)[:_MOST_SHOWN])
            raise InvalidInputError(
                f"{shown} is no value of the {whose}: send some of {known}.",
                field="labels",
                code="unknown_label",
            )
        if label in found[:place]:
            raise InvalidInputError(
                f"{shown} means the same label as another value of the {whose}: keep one.", field="labels"
            )
    return tuple(found)


def value_said(entry: PackEntry, text: str) -> str:
    """The question's value for what the version wrote. What is no label stays as it is, but a text that only
    reads like a value is marked: it must not count as that value."""
    said = text.strip()
    for value, label in entry.labels.items():
        if label.strip() == said:
            return value
    return _NO_LABEL + text if said in {value.strip() for value in entry.labels} else text
