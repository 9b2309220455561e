"""What the bodies of completions, chat and responses share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from chorus_server.api.schemas.common import AnswerModel, LogitBias, Reference, Stop
from chorus_server.api.schemas.inference import (
    Deadline,
    GenerationSettings,
    PriorityClass,
    SpecialTokens,
    Truncate,
)
from chorus_server.api.schemas.openai.lenient import Ignored, LenientBody, Refused

MOST_TOKENS = "By default the version's, else the server's. Above what fits after the input, that many."

Silent = Annotated[Any, Ignored("It changes no answer.")]
"""A field that changes no answer."""


class OpenAIBody(LenientBody, GenerationSettings):
    """The model, how it chooses its tokens, and who asks. Settings that are left out come from the version,
    else from the server; beside OpenAI's there are this server's own."""

    model_config = ConfigDict(extra="ignore")

    model: Reference = Field(
        description="`task`, `task@3`, `task@alias`, `tenant/task@3`, `base`, or a name that the operator "
        "has mapped."
    )
    temperature: float | None = Field(
        None, ge=0, le=100, description="By default the version's, else 0: the likeliest token."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="By default the version's, else 1: among all tokens."
    )
    n: int | None = Field(
        None, ge=1, le=64, description="Answers, by default 1; several need a temperature or beams."
    )
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**64, description="Its lowest 32 bits; random if left out."
    )
    stop: Stop | None = Field(None, description="Up to 8 texts; the answer ends before the first of them.")
    logit_bias: LogitBias | None = Field(
        None, description="By ids of this model's vocabulary, up to 64 of them."
    )
    max_new_tokens: Annotated[Any, Refused("It is called max_tokens here: send that.")] = None
    min_p: Annotated[Any, Refused("Send top_p or top_k.", (0,))] = None
    truncate: Truncate
    special_tokens: SpecialTokens
    deadline_seconds: Deadline
    priority: PriorityClass
    user: Silent = None
    safety_identifier: Silent = None
    metadata: Silent = None
    service_tier: Silent = None
    prompt_cache_key: Silent = None
    prompt_cache_retention: Silent = None


class StreamOptions(LenientBody):
    """What a stream ends with."""

    include_usage: bool | None = Field(None, description="A last chunk without choices tells the usage.")
    include_obfuscation: Silent = None


class OpenAIUsage(AnswerModel):
    """Numbers of tokens. `prompt_tokens` counts the rows of the task's prompt, the text and `</s>`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
