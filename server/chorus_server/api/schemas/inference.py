"""Bodies of `/v1/generate`, `/v1/classify` and `/v1/ensemble`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, create_model

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import (
    MAX_LABELS,
    MAX_MEMBERS,
    MAX_ROWS,
    AnswerModel,
    ErrorDetail,
    Input,
    LogitBias,
    Reference,
    Stop,
    Weight,
    documented,
)
from chorus_server.engine.requests import Priority
from chorus_server.engine.sampling import SETTINGS, Setting
from chorus_server.validation import Items, RequestModel

Deadline = Annotated[
    float | None,
    Field(
        default=None,
        gt=0,
        description="Seconds from the request's arrival; after that the item fails with 504.",
    ),
]
Truncate = Annotated[
    bool | None,
    Field(default=None, description="Cut a text that is too long, and say so, instead of refusing it."),
]
SpecialTokens = Annotated[
    bool | None,
    Field(
        default=None,
        description="`<extra_id_0>` and so on become sentinels, in templates, inputs, labels and answers. By "
        "default the version decides, else they are plain text.",
    ),
]
PriorityClass = Annotated[
    Priority,
    Field(
        default="interactive",
        description="`interactive` goes first among the tenant's requests; `batch` gets the rest of its "
        "share, and at least a tenth.",
    ),
]
LONGEST_LABEL = 512
"""Most characters of a label that a request sends."""

Labels = Annotated[Items[Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]], Field(min_length=2)]


INPUTS = ("input", "inputs")

_JSON_FORMS: Mapping[str, Any] = {
    "stop": Stop,
    "logit_bias": LogitBias,
    **{name: Literal[each.choices] for name, each in SETTINGS.items() if each.choices},
}
"""Settings whose JSON form differs from Python's, or that accept only some values."""


def _field(setting: Setting) -> Any:
    field = Field(None, description=setting.description, **setting.bounds)  # type: ignore[call-overload]
    return _JSON_FORMS.get(setting.name, setting.kind) | None, field


_Declared = create_model(
    "_Declared", __base__=RequestModel, **{name: _field(each) for name, each in SETTINGS.items()}
)


class GenerationSettings(_Declared):
    """How tokens are chosen. Settings that are left out come from the version, else from the server."""


class GenerateItem(GenerationSettings):
    """One item of `requests`. Its settings override those beside `requests`."""

    task: Reference | None = Field(description="A reference, or null for the base model.")
    input: Input
    logprobs: bool | None = Field(None, description="Answer with the tokens' log probabilities.")
    truncate: Truncate
    special_tokens: SpecialTokens


class GenerateBody(GenerationSettings):
    """One of `input`, `inputs` and `requests`; the first two need a task."""

    model_config = ConfigDict(json_schema_extra=documented(examples.GENERATE))
    most: ClassVar[Mapping[str, int]] = {"inputs": MAX_ROWS, "requests": MAX_ROWS}
    long_texts: ClassVar[Collection[str] | None] = INPUTS

    task: Reference | None = Field(None, description="A reference, or null for the base model.")
    input: Input | None = None
    inputs: Items[Input] | None = Field(None, min_length=1)
    requests: Items[GenerateItem] | None = Field(None, min_length=1, description="Items of mixed tasks.")
    logprobs: bool | None = Field(None, description="Answer with the tokens' log probabilities.")
    truncate: Truncate
    special_tokens: SpecialTokens
    stream: bool = Field(False, description="Answer with server-sent events.")
    deadline_seconds: Deadline
    priority: PriorityClass


class ClassifyItem(RequestModel):
    """One item of `requests`."""

    task: Reference | None = Field(description="A reference, or null for the base model.")
    input: Input
    truncate: Truncate
    special_tokens: SpecialTokens


class ClassifyBody(RequestModel):
    """Rank labels after each input: of `input`, `inputs` and `requests` one; the first two need a task."""

    model_config = ConfigDict(json_schema_extra=documented(examples.CLASSIFY))
    most: ClassVar[Mapping[str, int]] = {
        "inputs": MAX_ROWS,
        "requests": MAX_ROWS,
        "labels": MAX_LABELS,
    }
    long_texts: ClassVar[Collection[str] | None] = INPUTS

    task: Reference | None = Field(None, description="A reference, or null for the base model.")
    input: Input | None = None
    inputs: Items[Input] | None = Field(None, min_length=1)
    requests: Items[ClassifyItem] | None = Field(None, min_length=1, description="Items of mixed tasks.")
    labels: Labels | None = Field(None, description="By default the version's own labels.")
    truncate: Truncate
    special_tokens: SpecialTokens
    deadline_seconds: Deadline
    priority: PriorityClass


class EnsembleBody(RequestModel):
    """Let several versions vote on each input."""

    model_config = ConfigDict(json_schema_extra=documented(examples.ENSEMBLE))
    most: ClassVar[Mapping[str, int]] = {
        "tasks": MAX_MEMBERS,
        "weights": MAX_MEMBERS,
        "inputs": MAX_ROWS,
        "labels": MAX_LABELS,
    }
    long_texts: ClassVar[Collection[str] | None] = INPUTS

    tasks: Items[Reference] | None = Field(None, min_length=1)
    ensemble: Reference | None = None
    input: Input | None = None
    inputs: Items[Input] | None = Field(None, min_length=1)
    vote: Literal["majority"] = "majority"
    weights: Items[Weight] | None = Field(None, description="One weight for each of `tasks`.")
    labels: Labels | None = Field(
        None, description="Vote among these labels; by default those that all members share."
    )
    max_new_tokens: int | None = Field(None, ge=1)
    truncate: Truncate
    special_tokens: SpecialTokens
    deadline_seconds: Deadline
    priority: PriorityClass


class Usage(AnswerModel):
    """Numbers of tokens. `input_tokens` counts prompt, text and `</s>`; `prompt_tokens` counts the prompt's
    rows among them."""

    input_tokens: int
    prompt_tokens: int
    output_tokens: int


class TopLogprob(AnswerModel):
    """One of the likeliest tokens in a place."""

    token: str
    id: int
    logprob: float


class Logprobs(AnswerModel):
    """Log probabilities of the chosen tokens under the unmodified distribution."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[list[TopLogprob]] | None = Field(
        None, description="For each token, the likeliest tokens in its place; only if `top_logprobs` asks."
    )


class Choice(AnswerModel):
    """One sequence."""

    text: str
    finish_reason: Literal["stop", "stop_string", "length"]
    score: float | None
    logprobs: Logprobs | None = None


class GenerateResult(AnswerModel):
    """One finished item, or its error."""

    task: str | None
    version: int | None = None
    digest: str | None = None
    text: str | None = None
    finish_reason: Literal["stop", "stop_string", "length"] | None = None
    truncated: bool | None = None
    usage: Usage | None = None
    choices: list[Choice] | None = None
    error: ErrorDetail | None = None


class GenerateAnswer(AnswerModel):
    """Results in the order of the request."""

    id: str
    results: list[GenerateResult]


class ClassifyResult(AnswerModel):
    """One ranked item, or its error."""

    task: str | None
    version: int | None = None
    digest: str | None = None
    label: str | None = None
    probabilities: dict[str, float | None] | None = None
    calibrated: bool | None = Field(
        None, description="Whether a calibration of the version made the probabilities."
    )
    calibration: int | None = Field(None, description="The number of that calibration.")
    log_probabilities: dict[str, float | None] | None = Field(
        None, description="As the model gives them, whatever the calibration."
    )
    truncated: bool | None = None
    usage: Usage | None = None
    error: ErrorDetail | None = None


class ClassifyAnswer(AnswerModel):
    """Results in the order of the request."""

    id: str
    results: list[ClassifyResult]


class MemberAnswer(AnswerModel):
    """The answer of one member, or its error."""

    task: str
    version: int
    digest: str
    weight: float
    answer: str | None = None
    log_probability: float | None = None
    probability: float | None = Field(None, description="Of its answer, where members rank labels.")
    calibrated: bool | None = Field(None, description="Whether a calibration made the probability.")
    calibration: int | None = Field(None, description="The number of that calibration.")
    error: ErrorDetail | None = None


class ResolvedEnsemble(AnswerModel):
    """The version of a stored ensemble."""

    task: str
    version: int


class EnsembleResult(AnswerModel):
    """The result of one vote, or its error."""

    ensemble: ResolvedEnsemble | None
    answer: str | None = None
    counts: dict[str, float] | None = None
    agreement: float | None = None
    probabilities: dict[str, float | None] | None = Field(
        None, description="Where members rank labels: the mean of theirs, by weight. The vote decides."
    )
    calibrated: bool | None = Field(None, description="Whether every member that answered is calibrated.")
    truncated: bool | None = None
    members: list[MemberAnswer] | None = None
    error: ErrorDetail | None = None


class EnsembleAnswer(AnswerModel):
    """Results in the order of the request."""

    id: str
    results: list[EnsembleResult]
