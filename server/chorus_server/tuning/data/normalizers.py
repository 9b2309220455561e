"""How the fields of a template are rewritten before the text is made, as T5 does it with the columns of its
datasets. Serving and tuning do the same.

    "What is A.B?"  becomes, with t5_punctuation,  "What is A . B ?"

The rules are those of `t5/data/preprocessors.py` (text-to-text-transfer-transformer at e081111c), whose
regular expressions are RE2: their classes hold ASCII only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, AnyStr

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.recipe import NORMALIZER_SETTING
from prompts_store.tasks.template import Template, parse_template

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_SPACES = re.compile(r"[\t\n\f\r ]+")
_BREAK, _BOLD = re.compile("<br>"), re.compile("</?b>")
_SENTENCE_END = re.compile("([.?!\"'])\n@highlight\n")
_HIGHLIGHT = "\n@highlight\n"


@dataclass(frozen=True, slots=True)
class Normalizer:
    """One way to rewrite fields.

    Attributes:
        rewrite: from a field's text to its new one.
        only: the one field that it rewrites; None for all of them.
        joins: whether spaces at the ends of a field and of the text around it become one.
    """

    rewrite: Callable[[str], str]
    only: str | None = None
    joins: bool = False

    def fields(self, template: Template, fields: Mapping[str, AnyStr]) -> dict[str, AnyStr]:
        """The template's fields, rewritten; as UTF-8 if they are."""
        return {name: self._field(template, name, value) for name, value in fields.items()}

    def _field(self, template: Template, name: str, value: AnyStr) -> AnyStr:
        if self.only is not None and name != self.only:
            return value
        text = self.rewrite(value.decode() if isinstance(value, bytes) else value)
        if self.joins:
            after_space, before_space = _spaces_around(template, name)
            text = text.removeprefix(" ") if after_space else text
            text = text.removesuffix(" ") if before_space else text
        return text.encode() if isinstance(value, bytes) else text


def pad_punctuation(text: str) -> str:
    """A space on each side of ASCII punctuation, and one for all white space in a row."""
    return _SPACES.sub(" ", _PUNCTUATION.sub(r" \1 ", text))


def _without_html(text: str) -> str:
    return _BOLD.sub("", _BREAK.sub(" ", text))


def _without_highlights(text: str) -> str:
    return _SENTENCE_END.sub(r"\1 ", text).replace(_HIGHLIGHT, ". ")


NORMALIZERS: Mapping[str, Normalizer] = {
    "t5_punctuation": Normalizer(pad_punctuation, joins=True),
    "t5_multirc": Normalizer(_without_html),
    "t5_record": Normalizer(_without_highlights, only="passage"),
}


def normalized(
    settings: Mapping[str, Any], template: Template, fields: Mapping[str, AnyStr]
) -> Mapping[str, AnyStr]:
    """The fields as a version's settings, which were checked when they were stored, want them."""
    asked = settings.get(NORMALIZER_SETTING)
    return fields if asked is None else NORMALIZERS[asked].fields(template, fields)


def check_normalizer(asked: Any, field: str) -> None:
    """Refuse a `normalizer` that is not one. Raises InvalidInputError."""
    if not isinstance(asked, str) or asked not in NORMALIZERS:
        raise InvalidInputError(f"normalizer is one of {', '.join(NORMALIZERS)}.", field=field)


def unsuited(template: str, asked: str) -> str | None:
    """Why this normaliser does nothing for a template; None if it does something."""
    only, known = NORMALIZERS[asked].only, parse_template(template).fields
    if only is None or only in known:
        return None
    return f"{asked} rewrites the field {only}, and the template has {', '.join(known)}: rename its field."


def _spaces_around(template: Template, name: str) -> tuple[bool, bool]:
    """Whether, wherever a field stands, a space is before it, and after it."""
    before = after = True
    for place, (text, field) in enumerate(template.pieces):
        if field == name:
            before &= text.endswith(" ")
            after &= template.pieces[place + 1][0].startswith(" ")
    return before, after
