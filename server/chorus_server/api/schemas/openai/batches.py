"""A batch in the fields of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import AnswerModel, documented
from chorus_server.api.schemas.documents.batch import MOST_METADATA, BatchEndpoint, Metadata
from chorus_server.api.schemas.openai.lenient import LenientBody, Refused

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchBody(LenientBody):
    """Which lines to answer, and as which route does."""

    model_config = ConfigDict(json_schema_extra=documented(examples.OPENAI_BATCH))
    most: ClassVar[Mapping[str, int]] = {"metadata": MOST_METADATA}

    input_file_id: str = Field(min_length=1, max_length=256, description="Id of the uploaded file of lines.")
    endpoint: BatchEndpoint = Field(
        description="The `url` of every line. Native routes are possible beside OpenAI's."
    )
    completion_window: Literal["24h"] = Field(
        "24h", description="Must be `24h`, but nothing expires: a batch is answered as soon as it can be."
    )
    metadata: Metadata = Field(default_factory=dict, description="Up to 16 texts of the caller's own.")
    output_expires_after: Annotated[
        Any, Refused("Files are kept until they are deleted: leave it out, and delete them.")
    ] = None


class BatchFault(AnswerModel):
    """What is wrong with a line of the file, or with the batch."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchFaults(AnswerModel):
    """Why a batch failed."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(AnswerModel):
    """How many lines there are, and how they were answered."""

    total: int
    completed: int
    failed: int


class CachedTokens(AnswerModel):
    """Always 0."""

    cached_tokens: int


class ReasoningTokens(AnswerModel):
    """Always 0."""

    reasoning_tokens: int


class BatchUsage(AnswerModel):
    """What the answered lines took."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class OpenAIBatch(AnswerModel):
    """A batch. Times are Unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: BatchEndpoint
    errors: BatchFaults | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None = Field(description="Always null: nothing expires.")
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None = Field(description="Always null.")
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None


class OpenAIBatchList(AnswerModel):
    """Batches, newest first."""

    object: Literal["list"]
    data: list[OpenAIBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool
