"""Labels: the answers of a classification task. They belong to the version, in order."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from prompts_store.errors import InvalidError
from prompts_store.text import has_control_characters, is_unicode, shown

MAX_LABELS = 512
MAX_LABEL_CHARACTERS = 256


def check_labels(labels: Sequence[str], *, field: str = "labels") -> tuple[str, ...]:
    """The labels as a tuple, verbatim and in order; empty means free text.

    Raises:
        InvalidError: `invalid_labels`, with the path of the label (`labels.2`): it is not a text, is blank or
            too long, has control characters, or is the same as an earlier one. Two labels are the same if
            SentencePiece's normalisation (NFKC, runs of whitespace as one, none at the ends) makes them
            equal, because the model could not tell them apart.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise _invalid(f"The labels must be a list of texts, not {type(labels).__name__}.", field)
    if len(labels) > MAX_LABELS:
        raise _invalid(f"There are {len(labels)} labels; the limit is {MAX_LABELS}.", field)
    seen: dict[str, int] = {}
    for i, label in enumerate(labels):
        path = f"{field}.{i}"
        _check_label(label, path)
        key = " ".join(unicodedata.normalize("NFKC", label).split())
        if not key:
            raise _invalid("A label is blank; give it at least one visible character.", path)
        if key in seen:
            raise _invalid(
                f"The label {shown(label)} is the same as label {seen[key]}; labels must differ.", path
            )
        seen[key] = i
    return tuple(labels)


def _check_label(label: object, path: str) -> None:
    if not isinstance(label, str):
        raise _invalid(f"A label must be a text, not {type(label).__name__}.", path)
    if len(label) > MAX_LABEL_CHARACTERS:
        raise _invalid(f"The label has {len(label)} characters; the limit is {MAX_LABEL_CHARACTERS}.", path)
    if not is_unicode(label) or has_control_characters(label):
        raise _invalid("The label has control characters or lone surrogates; send printable text.", path)


def _invalid(message: str, field: str) -> InvalidError:
    return InvalidError(message, field=field, code="invalid_labels")
