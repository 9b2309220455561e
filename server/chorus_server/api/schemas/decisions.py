"""Bodies and answers of `/v1/decisions` and `/v1/systemone`, in the fields of the APIs that have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import AnswerModel, Reference, documented
from chorus_server.api.schemas.messages import input_value
from chorus_server.api.schemas.questions import MAX_QUESTIONS, openai_questions, system_questions
from chorus_server.errors import InvalidInputError
from chorus_server.validation import RequestModel
from prompts_store.digests import canonical_text

MAX_JSON_ITEMS = 1024
"""Most items of a list or an object within the state."""


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """What the questions are about.

    Attributes:
        text: as UTF-8; of an object or a list its canonical JSON.
        fields: an object's values by name, for a template of several fields; None for anything else.
    """

    text: bytes
    fields: Mapping[str, bytes] | None = None


def state_of(value: Any, field: str) -> DecisionInput:
    """A state from what was sent. Raises InvalidInputError with `field`."""
    if isinstance(value, str):
        return DecisionInput(value.encode())
    if not isinstance(value, dict | list):
        raise InvalidInputError("Send a text, an object or a list.", field=field)
    fields = {name: _text(inner) for name, inner in value.items()} if isinstance(value, dict) else None
    return DecisionInput(canonical_text(value).encode(), fields)


def _text(value: Any) -> bytes:
    return (value if isinstance(value, str) else canonical_text(value)).encode()


def _no_assets(value: Any) -> Any:
    if value:
        raise InvalidInputError("The model reads text only: send no images or other assets.", field="assets")
    return None


def _questions_schema(kinds: list[str], of: str) -> WithJsonSchema:
    question = {"type": "object", "properties": {"type": {"enum": kinds}}, "required": ["type"]}
    described = {"description": "See docs/decisions-api.md."}
    if of == "object":
        bounds = {"minProperties": 1, "maxProperties": MAX_QUESTIONS}
        return WithJsonSchema({"type": of, "additionalProperties": question, **bounds, **described})
    return WithJsonSchema(
        {"type": of, "items": question, "minItems": 1, "maxItems": MAX_QUESTIONS, **described}
    )


class _Decision(RequestModel):
    """What both bodies share. Fields that they do not know are ignored, as the APIs promise."""

    model_config = ConfigDict(extra="ignore")
    most: ClassVar[Mapping[str, int]] = {"questions": MAX_QUESTIONS}
    others: ClassVar[int] = MAX_JSON_ITEMS
    long_texts: ClassVar[Collection[str] | None] = None

    model: Reference = Field(description="A pack, a task, `base`, or a name that the operator has mapped.")
    truncate: bool | None = Field(None, description="Cut a state that is too long instead of refusing it.")


class DecisionsBody(_Decision):
    """Questions about an input, as OpenAI's clients send them."""

    model_config = ConfigDict(json_schema_extra=documented(examples.DECISIONS))

    input: Annotated[
        Any,
        BeforeValidator(lambda value: state_of(input_value(value), "input")),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
    ]
    questions: Annotated[
        Any, BeforeValidator(openai_questions), _questions_schema(["predicate", "choice", "score"], "array")
    ]


class SystemOneBody(_Decision):
    """Questions about a state, as TypeSafe's clients send them."""

    model_config = ConfigDict(json_schema_extra=documented(examples.SYSTEM_ONE))

    state: Annotated[
        Any,
        BeforeValidator(lambda value: state_of(value, "state")),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": {}}]}),
    ]
    questions: Annotated[
        Any, BeforeValidator(system_questions), _questions_schema(["noul", "choice", "score"], "object")
    ]
    assets: Annotated[Any, BeforeValidator(_no_assets), WithJsonSchema({"type": "null"})] = None


class ValueProbability(AnswerModel):
    """One choice."""

    value: str | bool
    probability: float


class LevelProbability(AnswerModel):
    """One level; `value` is its number, from 0."""

    label: str
    value: int
    probability: float


class DecisionAnswer(AnswerModel):
    """A predicate's probability, a choice with its confidence, or a score with its own."""

    type: Literal["predicate", "choice", "score"]
    name: str | None
    probability: float | None = None
    choice: str | bool | None = None
    score: float | None = None
    confidence: float | None = None
    probabilities: list[ValueProbability | LevelProbability] | None = None


class InputTokens(AnswerModel):
    """Nothing is cached."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokens(AnswerModel):
    """Nothing is generated."""

    reasoning_tokens: int


class DecisionUsage(AnswerModel):
    """Tokens of all questions together."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class DecisionsAnswer(AnswerModel):
    """Answers in the order of the questions."""

    model: str = Field(description="The version that was asked: `tenant/name@3`, or the base model's name.")
    answers: list[DecisionAnswer]
    usage: DecisionUsage


class SystemAnswer(AnswerModel):
    """A noul's probability, a choice with its confidence, or a score with its legend."""

    type: Literal["noul", "choice", "score"]
    noul: float | None = None
    choice: str | None = None
    score: float | None = None
    legend: dict[str, Any] | None = None
    probabilities: dict[str, float] | None = None
    confidence: float | None = None


class SystemUsage(AnswerModel):
    """Tokens of all questions together."""

    input_tokens: int
    output_tokens: int


class SystemOneAnswer(AnswerModel):
    """Answers by the questions' ids."""

    model: str = Field(description="The version that was asked: `tenant/name@3`, or the base model's name.")
    answers: dict[str, SystemAnswer]
    usage: SystemUsage


class SystemProblem(AnswerModel):
    """One thing that is wrong with the body."""

    loc: list[str | int]
    msg: str
    type: str


class SystemValidationError(AnswerModel):
    """The shape of TypeSafe's errors for a malformed body."""

    detail: list[SystemProblem]


class SystemFailure(AnswerModel):
    """What went wrong."""

    error_type: str
    message: str
    x_code: str = Field(description="The error code of docs/rest.md.")


class SystemOneError(AnswerModel):
    """The shape of TypeSafe's other errors."""

    detail: SystemFailure
