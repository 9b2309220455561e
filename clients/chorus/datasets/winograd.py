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
    words = text.split()
    first, second = (file.value(target, f"span{n}_index", number, int) for n in (1, 2))
    referent, pronoun = (file.value(target, f"span{n}_text", number) for n in (1, 2))
    try:
        referent, pronoun = (
            _as_written(text, words[first], referent),
            _as_written(text, words[second], pronoun),
        )
    except IndexError:
        file.refuse("the index of a span is beyond its words", number)
    for beginning, (plain, with_mark) in _ODD.items():
        if text.startswith(beginning) and plain in text:
            return text.replace(plain, with_mark), referent
    pieces = text.split(" ")
    if not 0 < second < len(pieces) or pieces[second] != pronoun:
        file.refuse(f"word {second} of the text is not the pronoun {ascii(pronoun)[:40]}", number)
    blank = " ".join((*pieces[:second], "X", *pieces[second + 1 :]))
    # T5 fills every X that stands by itself.
    return blank.replace(" X ", f" *{pronoun}* "), referent


def _as_written(text: str, word: str, span: str) -> str:
    """A span with the case that it has in the text, and without the full stop and line breaks that it has
    not."""
    if span in text or span in _APART:
        return span
    first = span[:1].lower() if word[:1].islower() else span[:1].upper()
    return (first + span[1:]).rstrip(".").replace("\n", " ")
