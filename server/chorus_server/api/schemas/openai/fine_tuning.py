"""Fine-tuning jobs in OpenAI's fields: the body that makes one, and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.openai.lenient import LenientBody, Refused
from chorus_server.tuning.document.job import JobDocument


def _not_auto(value: Any) -> Any:
    return None if value == "auto" else value


_AUTO = BeforeValidator(_not_auto)
_Whole = WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}, {"type": "null"}]})
_Number = WithJsonSchema(
    {"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}
)


class Hyperparameters(LenientBody):
    """How long and how fast to learn. `auto` and null leave it to the server."""

    n_epochs: Annotated[int | None, Field(ge=1, le=100_000), _AUTO, _Whole] = Field(
        None,
        description="How often every row is learned. `auto`: what makes 500 steps, 3 at least, within 30,000 "
        "steps.",
    )
    batch_size: Annotated[int | None, Field(ge=1, le=65_536), _AUTO, _Whole] = Field(
        None, description="Rows of a step. `auto`: 16, or all of a smaller file."
    )
    learning_rate_multiplier: Annotated[float | None, Field(gt=0, le=1e6), _AUTO, _Number] = Field(
        None, description="Times 0.3, the paper's learning rate. `auto`: 1."
    )


class SupervisedMethod(LenientBody):
    """The knobs of supervised fine-tuning."""

    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters, description="As below.")


_ONLY = "A prompt learns answers: use the method supervised."


class Method(LenientBody):
    """How to learn: from answers."""

    type: Literal["supervised"] = Field("supervised", description="`supervised`; others are refused.")
    supervised: SupervisedMethod = Field(
        default_factory=SupervisedMethod, description="Its `hyperparameters`."
    )
    dpo: Annotated[Any, Refused(_ONLY)] = None
    reinforcement: Annotated[Any, Refused(_ONLY)] = None


class FineTuningBody(LenientBody):
    """The body of `POST /v1/fine_tuning/jobs`."""

    most: ClassVar[Mapping[str, int]] = JobDocument.most

    model: str = Field(
        min_length=1,
        max_length=256,
        description="The base model (`base`, or its name), or a task to go on from, with its template, "
        "labels and settings.",
    )
    training_file: str = Field(
        min_length=1, max_length=256, description="Id of a JSONL file with the purpose `fine-tune`."
    )
    validation_file: str | None = Field(
        None,
        max_length=256,
        description="Likewise; it chooses the checkpoint. When left out, a tenth of 500 rows or more does, "
        "and with fewer the last values are kept.",
    )
    suffix: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="The name of the task, in lower case, with `-` for what a name cannot have. When left "
        "out: the task's own name for `model`, or `ft-` and eight digits.",
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="0 when left out.")
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
        Field(max_length=16),
    ] = Field(default_factory=dict, description="Kept with the job. No key may begin with `chorus.`.")
    method: Method | None = Field(None, description="`supervised`, with its hyperparameters.")
    hyperparameters: Hyperparameters | None = Field(
        None, description="The older place of `method.supervised.hyperparameters`, which goes before it."
    )
    integrations: Annotated[
        Any, Refused("The server reports to no other service: leave it out.", neutral=([],))
    ] = None
    chorus: dict[str, Any] = Field(
        default_factory=dict,
        description="Not OpenAI's: fields of a job document, which go before all others; send it as "
        '`extra_body={"chorus": {"recipe": {"prompt_length": 50}}}`.',
    )

    @property
    def knobs(self) -> Hyperparameters:
        """The hyperparameters, of the newer place first."""
        if self.method is not None and "supervised" in self.method.model_fields_set:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()


class JobError(AnswerModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class JobKnobs(AnswerModel):
    """The hyperparameters as they came out; null where a native job has none."""

    n_epochs: int | None
    batch_size: int
    learning_rate_multiplier: float


class SupervisedKnobs(AnswerModel):
    """Around them."""

    hyperparameters: JobKnobs


class JobMethod(AnswerModel):
    """The method of every job."""

    type: Literal["supervised"]
    supervised: SupervisedKnobs


class FineTuningJob(AnswerModel):
    """A tuning job."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None = Field(description="`task@version`, once the job has succeeded.")
    organization_id: str
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
    training_file: str
    validation_file: str | None
    hyperparameters: JobKnobs
    method: JobMethod
    trained_tokens: int | None
    result_files: list[str]
    estimated_finish: int | None
    error: JobError | None
    seed: int
    metadata: dict[str, str]
    integrations: None


class FineTuningJobs(AnswerModel):
    """A page of jobs."""

    object: Literal["list"]
    data: list[FineTuningJob]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FineTuningEvent(AnswerModel):
    """Something that happened in a job; `data` is the native event's."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class FineTuningEvents(AnswerModel):
    """A page of events, newest first."""

    object: Literal["list"]
    data: list[FineTuningEvent]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FineTuningCheckpoint(AnswerModel):
    """A step after which a job was measured."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str = Field(description="`task@version`; empty for values that became none.")
    step_number: int
    metrics: dict[str, float]


class FineTuningCheckpoints(AnswerModel):
    """A page of checkpoints, newest first."""

    object: Literal["list"]
    data: list[FineTuningCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool
