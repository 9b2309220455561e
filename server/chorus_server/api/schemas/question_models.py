"""One question as each of the two decision APIs sends it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictStr

from chorus_server.validation import RequestModel

MAX_CHOICES = 255
MAX_LEVELS = 10

# What the System One API sends.

Readable = str | dict[str, Any] | list[Any]
"""A text, or JSON that is read as one."""


class NoulCriteria(RequestModel):
    """What the two outcomes mean."""

    true: Readable | None = None
    false: Readable | None = None


class NoulQuestion(RequestModel):
    """How probable is it?"""

    type: Literal["noul"]
    instructions: Readable | None = None
    criteria: NoulCriteria | None = None


class SystemChoiceQuestion(RequestModel):
    """Which of these? Each option with its description."""

    type: Literal["choice"]
    instructions: Readable | None = None
    criteria: dict[Annotated[str, Field(min_length=1, max_length=512)], Readable | None] = Field(
        min_length=2, max_length=MAX_CHOICES
    )


class SystemScoreQuestion(RequestModel):
    """How much? Levels from the lowest; a level may be null."""

    type: Literal["score"]
    instructions: Readable | None = None
    criteria: list[Readable | None] = Field(min_length=2, max_length=MAX_LEVELS)


# What the OpenAI API sends.


class TextPart(RequestModel):
    """A piece of text."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: Any = None


class JsonPart(RequestModel):
    """A piece of JSON, read as text."""

    type: Literal["input_json"]
    data: dict[str, Any] | list[dict[str, Any]]


Instructions = str | list[TextPart | JsonPart]


class PredicateQuestion(RequestModel):
    """How probable is it that this is true?"""

    type: Literal["predicate"]
    instructions: Instructions
    name: str | None = None


class ChoiceOption(RequestModel):
    """One choice. A text and a truth value are different, even if they read alike."""

    value: StrictBool | Annotated[StrictStr, Field(min_length=1, max_length=512)]
    description: str | None = None


class ChoiceQuestion(RequestModel):
    """Which of these?"""

    type: Literal["choice"]
    instructions: Instructions
    choices: list[ChoiceOption] = Field(min_length=2, max_length=MAX_CHOICES)
    name: str | None = None


class ScoreLevel(RequestModel):
    """One level."""

    label: str | None
    description: str | None = None


class ScoreQuestion(RequestModel):
    """How much? Levels from the lowest."""

    type: Literal["score"]
    instructions: Instructions
    levels: list[ScoreLevel] = Field(min_length=2, max_length=MAX_LEVELS)
    name: str | None = None
