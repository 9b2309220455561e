"""Bodies that are strict on what changes an answer and lenient on the rest.

OpenAI's clients send fields that ask for nothing: nulls, `n: 1`, `store: false`, one of next year. A model
of a body declares each field that it knows, one of three ways:

    temperature: float | None = Field(None, description=...)              honoured
    user: Annotated[Any, Ignored("It changes no answer.")] = None         ignored
    suffix: Annotated[Any, Refused("...", neutral=("",))] = None          refused, unless it is neutral

A field that it does not know is ignored, and a null is a field that was not sent. The declarations are also
the table in `docs/openai.md`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from chorus_server.validation import NullsLeftOut

Fate = Literal["honoured", "ignored", "refused"]


@dataclass(frozen=True)
class Ignored:
    """Marks a field that may have any value.

    Attributes:
        why: a sentence for the reader of the table.
    """

    why: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda value: None)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"description": f"Ignored. {self.why}"}


@dataclass(frozen=True)
class Refused:
    """Marks a field that would change the answer, and that this server cannot follow.

    Attributes:
        why: a sentence that says why, and what to do.
        neutral: the values, beside null, that ask for nothing.
    """

    why: str
    neutral: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"enum": [None, *self.neutral], "description": f"Refused. {self.why}"}

    def _checked(self, value: Any) -> None:
        if not any(_same(value, neutral) for neutral in self.neutral):
            raise PydanticCustomError("refused", self.why)


def _same(value: Any, neutral: Any) -> bool:
    """Equal in JSON: 1 is 1.0, and true is not 1."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


class LenientBody(NullsLeftOut):
    """Base of the bodies, and of the objects within them, that OpenAI's clients send."""

    model_config = ConfigDict(extra="ignore")
    long_texts: ClassVar[Collection[str] | None] = None


def fates(model: type[LenientBody]) -> Iterator[tuple[str, Fate, str]]:
    """What becomes of each field that a body declares, and a sentence about it."""
    for name, field in model.model_fields.items():
        yield (field.alias or name, *_fate(field))


def _fate(field: FieldInfo) -> tuple[Fate, str]:
    for mark in field.metadata:
        if isinstance(mark, Ignored):
            return "ignored", mark.why
        if isinstance(mark, Refused):
            return "refused", mark.why
    return "honoured", field.description or ""
