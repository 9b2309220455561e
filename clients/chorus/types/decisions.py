"""Answers of the decision routes."""

from __future__ import annotations

from typing import Any

from chorus.types.base import Wire


class ChoiceProbability(Wire):
    """One choice. A text and a truth value are different, even if they read alike."""

    value: str | bool
    probability: float


class LevelProbability(Wire):
    """One level; `value` is its number, from 0."""

    label: str
    value: int
    probability: float


class Decision(Wire):
    """The answer to one question.

    Attributes:
        type: `predicate`, `choice` or `score`.
        probability: of a predicate.
        choice: the most probable value.
        score: the mean level, from 0.
        confidence: from 0, all values equally probable, to 1.
        probabilities: of each choice or level, in the order of the question.
    """

    type: str
    name: str | None = None
    probability: float | None = None
    choice: str | bool | None = None
    score: float | None = None
    confidence: float | None = None
    probabilities: list[LevelProbability | ChoiceProbability] | None = None


class InputTokenDetails(Wire):
    """Nothing is cached."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokenDetails(Wire):
    """Nothing is generated."""

    reasoning_tokens: int = 0


class DecisionUsage(Wire):
    """Tokens of all questions together."""

    input_tokens: int
    input_tokens_details: InputTokenDetails
    output_tokens: int
    output_tokens_details: OutputTokenDetails
    total_tokens: int


class Decisions(Wire):
    """Answers in the order of the questions. `model` is the version that was asked."""

    model: str
    answers: list[Decision]
    usage: DecisionUsage


class SystemOneAnswer(Wire):
    """The answer to one question, in TypeSafe's fields.

    Attributes:
        type: `noul`, `choice` or `score`.
        noul: the probability of a noul.
        legend, probabilities: by option, or by number of the level.
    """

    type: str
    noul: float | None = None
    choice: str | None = None
    score: float | None = None
    legend: dict[str, Any] | None = None
    probabilities: dict[str, float] | None = None
    confidence: float | None = None


class SystemOneUsage(Wire):
    """Tokens of all questions together."""

    input_tokens: int
    output_tokens: int


class SystemOne(Wire):
    """Answers by the questions' ids. `model` is the version that was asked."""

    model: str
    answers: dict[str, SystemOneAnswer]
    usage: SystemOneUsage


class OpenAIModel(Wire):
    """A name that `model` may be, in OpenAI's fields."""

    id: str
    object: str
    created: int
    owned_by: str


class SystemOneModel(Wire):
    """The same in TypeSafe's."""

    name: str
    description: str
    release_date: str


class ModelList(Wire):
    """All of them, twice. `has_more` says that there are more tasks or packs than one list holds."""

    object: str
    data: list[OpenAIModel]
    has_more: bool
    models: list[SystemOneModel]
