"""Answers typed questions about one state: each is a row of one batch, and none can change another.

Every row is answered in the one shape of its input's class, so the others, their order and their ids change
no bit of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from chorus_server.api.decisions.models import DecisionModel, model_of
from chorus_server.api.decisions.zero_shot import zero_shot_labels, zero_shot_text
from chorus_server.api.inference.calibrated import ranked
from chorus_server.api.inference.calls import Call, prepare_all
from chorus_server.api.inference.items import Item, Value
from chorus_server.api.inference.prepare import answer_start, label_targets
from chorus_server.api.inference.ranking import scores_of
from chorus_server.api.inference.submit import SubmitResult, outcomes
from chorus_server.api.inference.turns import in_turns, turns
from chorus_server.api.schemas.common import MAX_LABELS, MAX_ROWS
from chorus_server.api.schemas.decisions import DecisionInput
from chorus_server.api.schemas.questions import Question
from chorus_server.engine.requests import ScoreRequest
from chorus_server.errors import ChorusError, InvalidInputError
from prompts_store.records import PromptVersion
from prompts_store.tasks.template import parse_template

INSTRUCTIONS = "instructions"
"""The template field that a question's instructions go to."""

_MARK = "question:"

LabelTargets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """All answers.

    Attributes:
        model: what answered: `tenant/name@3`, or the base model's name.
        probabilities: of each question's options, in their order.
    """

    model: str
    questions: Sequence[Question]
    probabilities: Sequence[Sequence[float]]
    input_tokens: int


async def decide(
    call: Call, name: str, state: DecisionInput, questions: Sequence[Question], *, truncate: bool
) -> Decided:
    """Answer the questions.

    Args:
        name: of the model.
        truncate: whether to cut a state that is too long.

    Raises:
        QuestionError: a question cannot be answered.
        ChorusError: the model is not there, or a row failed; then there are no answers.
    """
    if len(questions) > MAX_ROWS:
        raise InvalidInputError(
            f"There are {len(questions)} questions; this server takes {MAX_ROWS}.", field="questions"
        )
    async with AsyncExitStack() as stack:
        model = await model_of(call, name)
        references = [model.asked(question) for question in questions]
        wanted = [(reference, "model") for reference in references if reference is not None]
        fingerprint = call.serving.base.fingerprint
        async with call.in_time():
            held = call.services.library.held(wanted, model.tenant, fingerprint, patterns=model.patterns)
            found = await stack.enter_async_context(held)
            versions = [None if reference is None else found[reference] for reference in references]
            items = await _items(call, state, questions, versions, truncate=truncate)
            labels = await in_turns(partial(_labels, model), questions, versions)
            requests = await _requests(call, questions, items, labels)
        results = await outcomes(call.submit, requests)
        read = partial(_probabilities, call.serving.base.matrix_dtype)
        probabilities = await in_turns(read, items, labels, results)
    used = sum(item.tokens for item in items)
    return Decided(_shown(call, model, versions), questions, probabilities, used)


async def _items(
    call: Call,
    state: DecisionInput,
    questions: Sequence[Question],
    versions: Sequence[PromptVersion | None],
    *,
    truncate: bool,
) -> list[Item]:
    """The questions' inputs. Questions of one version that read the same text share theirs."""
    alike: dict[tuple[str, int, bytes | tuple[tuple[str, bytes], ...]], int] = {}
    places: list[int] = []
    pairs: list[tuple[Item, PromptVersion | None]] = []
    most, copied = call.services.settings.max_body_bytes, 0
    async for at, question, version in turns(zip(range(len(questions)), questions, versions, strict=True)):
        value = _value(question, state, version)
        copied += len(value) if version is None and isinstance(value, bytes) else 0
        if copied > most:
            raise question.error(
                f"the base model reads the state anew for each question, and with this one that is more than "
                f"{most} bytes: send a shorter state or fewer questions."
            )
        content = value if isinstance(value, bytes) else tuple(sorted(value.items()))
        whose = ("", 0) if version is None else (f"{version.tenant}/{version.task}", version.number)
        place = alike.setdefault((*whose, content), len(pairs))
        places.append(place)
        if place == len(pairs):
            pairs.append((Item(None, value, f"{_MARK}{at}", "model", truncate), version))
    try:
        prepared = await prepare_all(call, pairs)
    except ChorusError as error:
        at_fault = (error.field or "").partition(".")[0]
        if not at_fault.startswith(_MARK):
            raise
        question = questions[int(at_fault.removeprefix(_MARK))]
        raise question.error(error.message, code=error.code) from None
    return [prepared[place] for place in places]


def _value(question: Question, state: DecisionInput, version: PromptVersion | None) -> Value:
    """What fills the version's template, or the base model's text.

    One field takes the whole state; several are filled from the state's own. Instructions go to the field of
    their name and nowhere else.
    """
    if version is None:
        return zero_shot_text(question, state.text)
    names = parse_template(version.manifest.template).fields
    others = [name for name in names if name != INSTRUCTIONS]
    whose = f"{version.tenant}/{version.task}@{version.number}"
    if not others:
        raise question.error(f"the template of {whose} has no field for the state; use another version.")
    if len(names) == 1:
        return state.text
    fields: Mapping[str, bytes]
    if len(others) == 1:
        fields = {others[0]: state.text}
    elif state.fields is None:
        raise question.error(
            f"the template of {whose} has the fields {', '.join(others)}: send an object with "
            "these as the state."
        )
    else:
        fields = state.fields
    if INSTRUCTIONS in names:
        fields = {**fields, INSTRUCTIONS: question.instructions.encode()}
    return fields


async def _requests(
    call: Call, questions: Sequence[Question], items: Sequence[Item], labels: Sequence[tuple[str, ...]]
) -> list[ScoreRequest]:
    known: dict[tuple[tuple[str, ...], tuple[int, ...]], LabelTargets] = {}

    def request(at: int, question: Question, item: Item, own: tuple[str, ...]) -> ScoreRequest:
        start = answer_start(call.serving.vocabulary, item.version)
        if (own, start) not in known:
            known[own, start] = _targets(call, question, own, start)
        return ScoreRequest(call.origin(at, item), item.input, known[own, start], fixed_shape=True)

    return await in_turns(request, range(len(questions)), questions, items, labels)


def _probabilities(
    matrix_dtype: str, item: Item, labels: Sequence[str], outcome: SubmitResult
) -> Sequence[float]:
    """Of a question's options, in their order; as `/v1/classify` has them, calibrated where the labels are
    exactly those of the version's calibration."""
    scores = scores_of(outcome)
    if isinstance(scores, ChorusError):
        raise scores
    return ranked(item, labels, scores, matrix_dtype).probabilities


def _labels(model: DecisionModel, question: Question, version: PromptVersion | None) -> tuple[str, ...]:
    """The label of each option: its own text for a task, what the pack says for a pack."""
    if version is None:
        return zero_shot_labels(question)
    entry = model.entry(question)
    if entry is None:
        return tuple(option.text for option in question.options)
    labels: list[str] = []
    for at, option in enumerate(question.options):
        label = entry.labels.get(option.text, option.text)
        if label not in version.manifest.labels:
            raise question.error(
                f"its value {ascii(option.text)[:80]} has no label: the version "
                f"{entry.tenant}/{entry.task}@{entry.version} answers with "
                f"{', '.join(version.manifest.labels[:8])}. Ask for these, or map the value in the pack.",
                question.options_at,
                at,
            )
        if label in labels:
            raise question.error(
                f"two of its values mean the label {ascii(label)[:80]}; keep one.", question.options_at, at
            )
        labels.append(label)
    return tuple(labels)


def _targets(call: Call, question: Question, labels: tuple[str, ...], start: tuple[int, ...]) -> LabelTargets:
    if len(labels) > MAX_LABELS:
        raise question.error(
            f"it has {len(labels)} options; this server ranks {MAX_LABELS}.", question.options_at
        )
    longest = call.serving.limits.max_target_tokens
    try:
        return tuple(label_targets(call.serving.vocabulary, labels, longest, "label", start))
    except InvalidInputError as error:
        at = int((error.field or "").rpartition(".")[2])
        raise question.error(f"option {at}. {error.message}", question.options_at, at) from None


def _shown(call: Call, model: DecisionModel, versions: Sequence[PromptVersion | None]) -> str:
    if model.pack is not None:
        return f"{model.pack.tenant}/{model.pack.name}@{model.pack.number}"
    version = versions[0]
    if version is None:
        return call.serving.base.name
    return f"{version.tenant}/{version.task}@{version.number}"
