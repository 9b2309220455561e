"""What the parts of a job document share: what null means, what a text may hold, where a field was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from prompts_store.text import has_control_characters, is_unicode
from server.errors import InvalidInputError
from server.validation import RequestModel, validation_error

MAX_TEXT_CHARACTERS = 16_384
MAX_ITEMS = 512
"""Texts of a list, or fields of an object."""


class DocumentModel(RequestModel):
    """A part of a job document. A field that is null was left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: each for name, each in value.items() if each is not None}

    @classmethod
    def read(cls, value: Any, path: str = "") -> Self:
        """What was sent, each field by itself: what goes with what is checked later.

        Args:
            path: of the value in what was sent; empty at the top.

        Raises:
            InvalidInputError: an unknown field, a wrong type or a value out of range; `field` is its dotted
                path.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            found = validation_error(error)
            inner = "" if found.field in (None, "body") else found.field
            field = ".".join(part for part in (path, inner) if part) or "body"
            raise InvalidInputError(found.message, field=field, code=found.code) from None

    def to_json(self) -> dict[str, Any]:
        """All fields, as plain JSON values."""
        return self.model_dump(mode="json")

    def sent(self, name: str, inner: str | None = None) -> bool:
        """Whether a field was sent, or a field within it."""
        if name not in self.model_fields_set:
            return False
        return inner is None or inner in getattr(self, name).model_fields_set


def _check_printable(text: str) -> str:
    if not is_unicode(text) or has_control_characters(text, allowed="\t\n\r"):
        raise PydanticCustomError(
            "not_printable", "The text holds control characters or lone surrogates: send printable text"
        )
    return text


PRINTABLE = AfterValidator(_check_printable)
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS), PRINTABLE]
ShortText = Annotated[str, Field(min_length=1, max_length=256), PRINTABLE]
Paragraph = Annotated[str, Field(min_length=1, max_length=2_048), PRINTABLE]
# JSON has no tuples: strict only about what is in them.
Texts = Annotated[tuple[Text, ...], Field(strict=False, fail_fast=True, max_length=MAX_ITEMS)]
TextMap = Annotated[dict[Text, Text], Field(max_length=MAX_ITEMS)]


@dataclass(frozen=True, slots=True)
class Paths:
    """Dotted paths of one prompt's fields, where they were sent: in its entry of `prompts`, or beside it.

    Attributes:
        beside: what was sent beside the list: the entry has it where it leaves a field out.
        entry: None without a list.
        place: of the entry in the list.
    """

    beside: DocumentModel
    entry: DocumentModel | None = None
    place: int = 0

    def __call__(self, name: str, inner: str | None = None) -> str:
        """The path of a field, or of one within it (of `recipe`, which is merged); of one that nobody sent,
        where it would be sent."""
        beside = self.entry is None or (self.beside.sent(name, inner) and not self.entry.sent(name, inner))
        if inner is not None:
            return f"{name if beside else self(name)}.{inner}"
        return name if beside else f"prompts.{self.place}.{name}"


def refuse(message: str, path: str, code: str | None = None) -> NoReturn:
    """Raise InvalidInputError: `path message`."""
    raise InvalidInputError(f"{path} {message}", field=path, code=code)
