"""What all parts of a job document share: the meaning of null, kinds of text, paths of fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, Self, cast

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from chorus_server.errors import InvalidInputError
from chorus_server.validation import NullsLeftOut, validation_error
from prompts_store.text import has_control_characters, is_unicode

AnswerBy = Literal["ranked", "greedy"]
"""How a label becomes the answer: it is the most probable one, or it is the text that the model writes."""

MAX_TEXT_CHARACTERS = 16_384
MAX_ITEMS = 512
"""Most texts in a list, or fields in an object."""


class DocumentModel(NullsLeftOut):
    """A part of a job document."""

    @classmethod
    def read(cls, value: Any, path: str = "") -> Self:
        """Check each field by itself; `check` and `completed` check them together.

        Args:
            path: of the value in the whole document; empty at the top.

        Raises:
            InvalidInputError: an unknown field, a wrong type or a value out of range. `field` is its dotted
                path.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            found = validation_error(error)
            inner = "" if found.field in (None, "body") else found.field
            field = ".".join(part for part in (path, inner) if part) or "body"
            raise InvalidInputError(found.message, field=field, code=found.code) from None

    def for_base(self, fingerprint: str) -> Self:
        """The whole document of a job, bound to a base model.

        Raises:
            InvalidInputError: `base_mismatch`: the document names another.
        """
        if cast(Any, self).base_fingerprint not in (None, fingerprint):
            message = "is of another base model; leave it out, or send the job to a server of that model"
            refuse(message, "base_fingerprint", code="base_mismatch")
        return self.model_copy(update={"base_fingerprint": fingerprint})

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
# JSON has no tuples, so only their items are strict.
TextList = Annotated[tuple[Text, ...], Field(strict=False, fail_fast=True, max_length=MAX_ITEMS)]
TextMap = Annotated[dict[Text, Text], Field(max_length=MAX_ITEMS)]


@dataclass(frozen=True, slots=True)
class FieldPaths:
    """Finds where the fields of one prompt were sent, as dotted paths.

    Attributes:
        places: path and content of the prompt's entry in `prompts`, then of what stands beside that list. The
            first that has a field counts.
    """

    places: tuple[tuple[str, DocumentModel], ...]

    def __call__(self, name: str, inner: str | None = None) -> str:
        """The path of a field, or of an inner field (of `recipe`, whose two places are merged).

        For a field that was not sent, the path that it would have; for an inner field that was not sent, the
        path of the field around it, or `body`.
        """
        for path, part in self.places:
            if part.sent(name, inner):
                return path + (name if inner is None else f"{name}.{inner}")
        if inner is None:
            return self.places[0][0] + name
        return self(name) if any(part.sent(name) for _, part in self.places) else "body"


def refuse(message: str, path: str, code: str | None = None) -> NoReturn:
    """Raise InvalidInputError: `path message`."""
    raise InvalidInputError(f"{path} {message}", field=path, code=code)
