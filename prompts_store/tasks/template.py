"""Input templates: how a request's fields become the text that follows the prompt.

    {name}     the field of that name: ASCII letters, digits and underscores, no digit first, 64 at most
    {{  }}     one brace
    other      itself

Nothing else has a meaning: there are no attributes, indices, conversions or format widths. `str.format` is
not used, because `{text.__class__}` would give access to the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import AnyStr

from prompts_store.errors import InvalidError
from prompts_store.text import has_control_characters, is_unicode, quoted, shown

MAX_TEMPLATE_CHARACTERS = 16_384
MAX_TEMPLATE_FIELDS = 64

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
# In this order: an escaped brace, a braced group on one level, a brace without a partner, plain text.
_TOKEN = re.compile(r"(?P<escape>\{\{|\}\})|\{(?P<name>[^{}]*)\}|(?P<stray>[{}])|(?P<text>[^{}]+)")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        pieces: `(literal, field)` pairs in order: a text, and the field after it (None after the last text).
        fields: the names used, each once, in order of first use. Never empty.
    """

    pieces: tuple[tuple[str, str | None], ...]
    fields: tuple[str, ...]

    def render(self, fields: Mapping[str, AnyStr], *, field: str = "input") -> AnyStr:
        """The text for one request, in UTF-8 if the fields are.

        Args:
            fields: exactly this template's fields, all as strings or all as UTF-8.
            field: path of `fields` in the request, for the error (`requests.3.input`).

        Raises:
            InvalidError: `missing_field`, `unknown_field` or `invalid_field`, with the path of the field.
        """
        self._check_names(fields, field)
        for name in self.fields:
            _check_value(fields[name], f"{field}.{name}")
        parts: list[AnyStr] = []
        like = fields[self.fields[0]]
        for text, after in self.pieces:
            parts.append(text.encode() if isinstance(like, bytes) else text)
            if after is not None:
                parts.append(fields[after])
        return like[:0].join(parts)

    def _check_names(self, fields: Mapping[str, AnyStr], path: str) -> None:
        expected = quoted(self.fields)
        for name in self.fields:
            if name not in fields:
                raise InvalidError(
                    f"The template needs the field '{name}', which the input does not have; send {expected}.",
                    field=f"{path}.{name}",
                    code="missing_field",
                )
        for name in fields:
            if name not in self.fields:
                known = isinstance(name, str) and _NAME.fullmatch(name)
                raise InvalidError(
                    f"The template has no field {shown(name)}; it takes {expected}.",
                    field=f"{path}.{name}" if known else path,
                    code="unknown_field",
                )


def around_field(
    rendered: AnyStr, template: Template, fields: Mapping[str, AnyStr], name: str
) -> tuple[AnyStr, AnyStr, AnyStr]:
    """What stands before a field in the rendered text, the field, and what stands after it.

    Args:
        fields: those that the text was rendered from.
        name: a field that the template uses once.
    """
    start = 0
    for text, field in template.pieces:
        start += len(text.encode() if isinstance(rendered, bytes) else text)
        if field == name or field is None:
            break
        start += len(fields[field])
    end = start + len(fields[name])
    return rendered[:start], rendered[start:end], rendered[end:]


def parse_template(text: str) -> Template:
    """Parse a template. The result is cached, so a template is parsed once rather than for every request.

    Raises:
        InvalidError: `invalid_template`, field `template`. It says what is wrong, and at which character.
    """
    if not isinstance(text, str):
        raise _invalid(f"A template must be a text, not {type(text).__name__}.")
    return _parse(text)


@lru_cache(maxsize=512)
def _parse(text: str) -> Template:
    _check_text(text)
    pieces: list[tuple[str, str | None]] = []
    literal: list[str] = []
    for token in _TOKEN.finditer(text):
        name = token["name"]
        if name is None:
            literal.append(_literal(token))
            continue
        if not _NAME.fullmatch(name):
            raise _invalid(_bad_name(name, token.start()))
        pieces.append(("".join(literal), name))
        literal.clear()
    pieces.append(("".join(literal), None))
    fields = tuple(dict.fromkeys(name for _, name in pieces if name is not None))
    if not 1 <= len(fields) <= MAX_TEMPLATE_FIELDS:
        raise _invalid(
            f"A template uses 1 to {MAX_TEMPLATE_FIELDS} fields, but this one uses {len(fields)}; "
            "write a field as {text}."
        )
    return Template(pieces=tuple(pieces), fields=fields)


def check_template(text: str) -> None:
    """Raise InvalidError (`invalid_template`) if `parse_template` would."""
    parse_template(text)


def render_input(
    template: str | Template, input: AnyStr | Mapping[str, AnyStr], *, field: str = "input"
) -> AnyStr:
    """The text for one request, in UTF-8 if the input is. A plain text fills the template's only field.

    Args:
        template: a template or its text.
        input: a string, or an object with the template's fields.
        field: path of `input` in the request, for the error.

    Raises:
        InvalidError: see `parse_template` and `Template.render`; `missing_field` for a plain text if the
            template has several fields.
    """
    parsed = parse_template(template) if isinstance(template, str) else template
    if isinstance(input, str | bytes):
        if len(parsed.fields) > 1:
            raise InvalidError(
                f"The template has {len(parsed.fields)} fields; send an object with {quoted(parsed.fields)}, "
                "not a plain text.",
                field=field,
                code="missing_field",
            )
        _check_value(input, field)
        return parsed.render({parsed.fields[0]: input}, field=field)
    if not isinstance(input, Mapping):
        raise InvalidError(
            f"The input must be a text or an object with {quoted(parsed.fields)}, not "
            f"{type(input).__name__}.",
            field=field,
            code="invalid_field",
        )
    return parsed.render(input, field=field)


def _literal(token: re.Match[str]) -> str:
    if token["stray"] is not None:
        raise _invalid(
            f"The brace '{token['stray']}' at character {token.start()} has no partner; write a field as "
            "{text}, and a brace itself as {{ or }}."
        )
    return token["text"] if token["text"] is not None else token["escape"][0]


def _bad_name(name: str, position: int) -> str:
    return (
        f"The field {shown(name)} at character {position} is not a name; a name has letters, digits and "
        "underscores, does not start with a digit and has at most 64 characters. Write a brace itself as {{ "
        "or }}."
    )


def _check_text(text: str) -> None:
    if len(text) > MAX_TEMPLATE_CHARACTERS:
        raise _invalid(f"The template has {len(text)} characters; the limit is {MAX_TEMPLATE_CHARACTERS}.")
    if not is_unicode(text) or has_control_characters(text, allowed="\t\n\r"):
        raise _invalid("The template has control characters or lone surrogates; send printable text.")


def _check_value(value: object, path: str) -> None:
    if isinstance(value, bytes):
        return
    if not isinstance(value, str):
        raise InvalidError(
            f"The field '{path}' must be a text, not {type(value).__name__}.",
            field=path,
            code="invalid_field",
        )
    if not is_unicode(value):
        raise InvalidError(
            f"The field '{path}' has lone surrogates; send valid Unicode text.",
            field=path,
            code="invalid_field",
        )


def _invalid(message: str) -> InvalidError:
    return InvalidError(message, field="template", code="invalid_template")
