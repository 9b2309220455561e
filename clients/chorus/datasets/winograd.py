"""WSC's sentences as T5 writes them: the pronoun between asterisks, `if *he* could lend`.

The rules are those of `_wsc_inputs` and `wsc_simple` in T5's preprocessors, on rows as tensorflow-datasets
corrects them (`_fix_wst` of its `super_glue.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus.datasets.official import OfficialFile

_APART = ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin")
"""Referents whose words are apart in the sentence."""

_GLUED, _GLUED_AT = "theyscold", 10
"""Two words that one row glues together, and where its pronoun stands."""

# Two sentences in which the index of the pronoun misses it: by how they begin, what stands there, and its
# form with the pronoun marked.
_ODD = {
    "The boy continued to whip the pony , and eventually the pony threw him over.": (
        '"Good for him," he said. ',
        '"Good for *him* ," he said.',
    ),
    "When they had eventually calmed down a bit , and had gotten home, Mr. Farley": (
        "want to use it , but",
        "want to use *it* , but",
    ),
}


def marked(file: OfficialFile, number: int, row: Mapping[str, Any]) -> tuple[str, str]:
    """A row's sentence with the pronoun marked, and the referent that the row names.

    Raises:
        InvalidArgumentError: the row does not say which word is the pronoun.
    """
    text, target = file.value(row, "text", number), file.value(row, "target", number, dict)
    first, second = (file.value(target, f"span{n}_index", number, int) for n in (1, 2))
    spans = [file.value(target, f"span{n}_text", number) for n in (1, 2)]
    for place, span in enumerate(spans):
        if span in text or span in _APART:
            continue
        index = second if place else first
        if _GLUED in span:
            second = _GLUED_AT
        spans[place] = _as_written(file, number, text, span, index)
    referent, pronoun = spans
    for beginning, (plain, with_mark) in _ODD.items():
        if text.startswith(beginning) and plain in text:
            return text.replace(plain, with_mark), referent
    pieces = text.split(" ")
    if not 0 < second < len(pieces) or pieces[second] != pronoun:
        file.refuse(f"word {second} of the text is not the pronoun {ascii(pronoun)[:40]}", number)
    blank = " ".join((*pieces[:second], "X", *pieces[second + 1 :]))
    # T5 fills every X that stands by itself.
    return blank.replace(" X ", f" *{pronoun}* "), referent


def _as_written(file: OfficialFile, number: int, text: str, span: str, index: int) -> str:
    """A span with the case of the word at its index, and without the full stop and line breaks that the text
    has not."""
    try:
        word = text.split()[index]
    except IndexError:
        file.refuse("the index of a span is beyond its words", number)
    first = span[:1].lower() if word[:1].islower() else span[:1].upper()
    written = (first + span[1:]).rstrip(".").replace("\n", " ")
    if written not in text:
        file.refuse(f"the text has no {ascii(span)[:40]}", number)
    return written
