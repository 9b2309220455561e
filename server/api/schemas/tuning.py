"""Bodies of the routes of files and tuning jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from server.api.schemas import examples
from server.api.schemas.common import AnswerModel, documented
from server.tuning.document import MAX_ITEMS
from server.tuning.spec import MAX_PROMPTS
from server.validation import Items, RequestModel

JobStatus = Literal["queued", "preparing", "running", "succeeded", "failed", "cancelled"]


class FileAnswer(AnswerModel):
    """An uploaded file of training data."""

    id: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime
    created_by: str


class FilePage(AnswerModel):
    """Files, newest first."""

    files: list[FileAnswer]
    next_cursor: str | None


class SourceBody(RequestModel):
    """Where rows come from: one of the three."""

    file: str | None = Field(None, description="Id of an uploaded file.")
    path: str | None = Field(None, description="On the server, where the operator allows it.")
    url: str | None = Field(None, description="Where the operator allows it.")


class DataBody(RequestModel):
    """The splits of a prompt."""

    train: SourceBody | None = Field(None, description="Learned from.")
    selection: SourceBody | None = Field(
        None, description="Chooses the checkpoint; cut from train when left out."
    )
    report: SourceBody | None = Field(None, description="Measured once, at the end.")
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = Field(
        None, description="Of all three; by each file's ending when left out."
    )
    column_names: Items[str] | None = Field(None, description="Of CSV and TSV files without a header.")
    selection_rows: int | None = Field(
        None, description="Rows cut from train; a tenth, at most 500, when left out; 0 cuts none."
    )
    selection_from: Literal["train", "report"] | None = Field(
        None, description="`report` chooses on the split that is reported, and the lineage says so."
    )


class PromptBody(RequestModel):
    """What one prompt is tuned for."""

    task: str | None = Field(None, description="Gets the new version; made if it is not there.")
    index: int | None = Field(None, description="What its random keys fold from; its place in the job.")
    data: DataBody | None = None
    template: str | None = Field(None, description="How columns become text, `{name}` fields only.")
    columns: dict[str, str] | None = Field(None, description="Column by template field, where they differ.")
    target: str | None = Field(None, description="Column of the answer; `label` when left out.")
    target_texts: dict[str, str] | None = Field(
        None, description="Answer by the column's value, such as `0` to `negative`."
    )
    labels: Items[str] | None = Field(None, description="Answers of a classification task, in order.")
    metrics: Items[str] | None = Field(None, description="Their mean chooses the checkpoint.")
    recipe: dict[str, Any] | None = Field(
        None, description="Knobs that differ from the paper's; docs/tuning.md."
    )
    description: str | None = Field(None, description="Of the task.")
    settings: dict[str, Any] | None = Field(None, description="Default generation settings of the version.")
    initial_prompt: str | None = Field(None, description="Reference of the prompt to start from.")


class TuningJobBody(PromptBody):
    """A tuning job: one prompt, an ensemble of them, or several (`prompts`) in one compiled step."""

    model_config = ConfigDict(json_schema_extra=documented(examples.TUNING_JOB))
    most: ClassVar[Mapping[str, int | str]] = {
        "prompts": MAX_PROMPTS,
        "labels": MAX_ITEMS,
        "columns": MAX_ITEMS,
        "target_texts": MAX_ITEMS,
        "column_names": MAX_ITEMS,
    }

    seed: int | None = Field(None, description="Of everything random in the job; 0 when left out.")
    ensemble: int | None = Field(None, description="Make so many prompts, and an ensemble of them.")
    ensemble_name: str | None = Field(None, description="The task's name and `-ensemble` when left out.")
    promote: bool | None = Field(
        None, description="Move `@live` to the new version; needs the scope `prompts:write`."
    )
    base_fingerprint: str | None = Field(None, description="Refuse the job on another base model.")
    prompts: Items[PromptBody] | None = Field(
        None, description="What stands beside this list is the default of each."
    )


class JobSummary(AnswerModel):
    """A tuning job in a list."""

    id: str
    status: JobStatus
    tasks: list[str]
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None = Field(description="Why it failed: `code`, `message` and perhaps `field`.")
    progress: dict[str, Any] = Field(description="As its last `step` event said.")
    cancel_requested: bool
    attempt: int = Field(description="How often somebody took it to run it.")


class JobAnswer(JobSummary):
    """A tuning job."""

    spec: dict[str, Any] = Field(description="The document, with every default written out.")
    result: dict[str, Any] = Field(description="Versions and metrics, once it succeeded.")


class JobPage(AnswerModel):
    """Tuning jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None


class JobEventAnswer(AnswerModel):
    """Something that happened in a job."""

    seq: int = Field(description="1, 2, ... in each job; the `id` of the server-sent event.")
    at: datetime
    kind: str
    data: dict[str, Any]


class JobEventList(AnswerModel):
    """Events after a number, in order."""

    events: list[JobEventAnswer]
