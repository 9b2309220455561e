"""Questions as the two decision APIs send them, and the one form that both become.

An error names the question by its id, whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from chorus_server.api.schemas.question_models import (
    ChoiceQuestion,
    JsonPart,
    NoulCriteria,
    NoulQuestion,
    PredicateQuestion,
    ScoreQuestion,
    SystemChoiceQuestion,
    SystemScoreQuestion,
    TextPart,
)
from chorus_server.errors import InvalidInputError
from chorus_server.validation import RequestModel, input_error, join_path
from prompts_store.digests import canonical_text
from prompts_store.text import has_control_characters

MAX_QUESTIONS = 400

Kind = Literal["predicate", "choice", "score"]
Place = tuple[str | int, ...]

_SHOWN = 64


class QuestionError(InvalidInputError):
    """A question is malformed, or cannot be answered.

    Args:
        place: the path of the value at fault in the body.
    """

    def __init__(self, message: str, place: Place, code: str | None = None) -> None:
        field = ""
        for part in place:
            field = join_path(field, part)
        super().__init__(message, field=field, code=code)
        self.place = place


@dataclass(frozen=True, slots=True)
class Option:
    """One value that a question may be answered with.

    Attributes:
        given: as it was sent: a text, a truth value, or a level in any JSON form.
        text: as a text: a task ranks it, and a pack maps it to a label.
        description: what it means; empty where nothing was said.
    """

    given: Any
    text: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A typed question about the input.

    Attributes:
        id: the name by which a pack knows it; None if it has none.
        place: its path in the body.
        shown: what errors call it.
        instructions: empty where there are none.
        options: true and false, the choices, or the levels from the lowest.
        options_at: the field that holds them.
    """

    kind: Kind
    id: str | None
    place: Place
    shown: str
    instructions: str
    options: tuple[Option, ...]
    options_at: str

    def error(self, message: str, *inner: str | int, code: str | None = None) -> QuestionError:
        """The refusal of this question."""
        return QuestionError(f"{self.shown}: {message}", (*self.place, *inner), code)


_TRUTH = (True, False)


def system_questions(value: Any) -> tuple[Question, ...]:
    """The questions of a System One body: an object, by id.

    Raises:
        QuestionError: the first that is malformed.
    """
    if not isinstance(value, dict):
        raise InvalidInputError("Send an object: each question under an id of its own.", field="questions")
    if not 1 <= len(value) <= MAX_QUESTIONS:
        raise InvalidInputError(
            f"There are {len(value)} questions; a request has 1 to {MAX_QUESTIONS}.", field="questions"
        )
    return tuple(_system_question(name, raw) for name, raw in value.items())


def _system_question(name: str, raw: Any) -> Question:
    place, called = ("questions", name), f"The question {_quoted(name)}"
    if not name:
        raise QuestionError("A question has an empty id: give it a name.", place)
    model = _typed(
        raw,
        place,
        called,
        {"noul": NoulQuestion, "choice": SystemChoiceQuestion, "score": SystemScoreQuestion},
    )
    instructions = _read(getattr(model, "instructions", None))
    make = _maker(name, place, called, instructions, "criteria")
    if isinstance(model, NoulQuestion):
        criteria = model.criteria or NoulCriteria()
        described = (_read(criteria.true), _read(criteria.false))
        if not instructions and not any(described):
            raise QuestionError(f"{called} needs instructions, or criteria that say what is true.", place)
        return make(
            "predicate", [Option(t, _truth(t), text) for t, text in zip(_TRUTH, described, strict=True)]
        )
    if isinstance(model, SystemChoiceQuestion):
        return make("choice", [Option(each, each, _read(text)) for each, text in model.criteria.items()])
    assert isinstance(model, SystemScoreQuestion)
    return make("score", [Option(level, _level(level, at)) for at, level in enumerate(model.criteria)])


def openai_questions(value: Any) -> tuple[Question, ...]:
    """The questions of an OpenAI body: a list.

    Raises:
        QuestionError: the first that is malformed.
    """
    if not isinstance(value, list):
        raise InvalidInputError("Send a list of questions.", field="questions")
    if not 1 <= len(value) <= MAX_QUESTIONS:
        raise InvalidInputError(
            f"There are {len(value)} questions; a request has 1 to {MAX_QUESTIONS}.", field="questions"
        )
    return tuple(_openai_question(at, raw) for at, raw in enumerate(value))


def _openai_question(at: int, raw: Any) -> Question:
    name = raw.get("name") if isinstance(raw, dict) else None
    named = isinstance(name, str) and name
    place, called = ("questions", at), f"Question {at}" + (f" ({_quoted(str(name))})" if named else "")
    model = _typed(
        raw, place, called, {"predicate": PredicateQuestion, "choice": ChoiceQuestion, "score": ScoreQuestion}
    )
    instructions = instructions_text(getattr(model, "instructions", ""))
    if isinstance(model, PredicateQuestion):
        return _maker(model.name, place, called, instructions, "type")(
            "predicate", [Option(truth, _truth(truth)) for truth in _TRUTH]
        )
    if isinstance(model, ChoiceQuestion):
        choices = [
            Option(each.value, each.value if isinstance(each.value, str) else _truth(each.value),
                   each.description or "")
            for each in model.choices
        ]  # fmt: skip
        return _maker(model.name, place, called, instructions, "choices")("choice", choices)
    assert isinstance(model, ScoreQuestion)
    levels = [
        Option(each.label, _level(each.label, at), each.description or "")
        for at, each in enumerate(model.levels)
    ]
    return _maker(model.name, place, called, instructions, "levels")("score", levels)


def instructions_text(given: str | Sequence[RequestModel]) -> str:
    """Text and JSON parts as one text, a line each."""
    if isinstance(given, str):
        return given
    return "\n".join(
        part.text if isinstance(part, TextPart) else canonical_text(part.data)
        for part in given
        if isinstance(part, TextPart | JsonPart)
    )


def _maker(
    name: str | None, place: Place, called: str, instructions: str, at: str
) -> Callable[[Kind, list[Option]], Question]:
    def make(kind: Kind, options: list[Option]) -> Question:
        question = Question(kind, name, place, called, instructions, tuple(options), at)
        seen: dict[tuple[type, str], int] = {}
        for index, option in enumerate(options):
            first = seen.setdefault((type(option.given), option.text), index)
            if first != index:
                raise question.error("two of its options are the same; keep one.", at, index)
        return question

    return make


def _typed(raw: Any, place: Place, called: str, kinds: Mapping[str, type[RequestModel]]) -> RequestModel:
    """The question in its model. Raises QuestionError for the first problem."""
    if not isinstance(raw, dict):
        raise QuestionError(f"{called} must be an object with a type.", place)
    kind = raw.get("type")
    model = kinds.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise QuestionError(f"{called} needs a type: {', '.join(kinds)}.", (*place, "type"))
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        loc = tuple(part for part in problem["loc"] if part != "[key]")
        said = input_error(problem)
        raise QuestionError(f"{called}: {said.message}", (*place, *_without_types(loc)), said.code) from None


def _without_types(loc: Place) -> Place:
    """The path that pydantic gives, without its names of the members of a union."""
    return tuple(
        part
        for part in loc
        if not (isinstance(part, str) and (part in {"str", "bool", "TextPart", "JsonPart"} or "[" in part))
    )


def _quoted(name: str) -> str:
    text = name if not has_control_characters(name) else ascii(name)[1:-1]
    return f"'{text}'" if len(text) <= _SHOWN else f"'{text[:_SHOWN]}...'"


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _level(level: Any, at: int) -> str:
    """A level without words is known by its number."""
    return _read(level) or str(at)


def _read(value: Any) -> str:
    """A text, or JSON as one; empty for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_text(value)
