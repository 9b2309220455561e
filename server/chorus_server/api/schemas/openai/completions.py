"""Body and answer of `/v1/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import MAX_ROWS, AnswerModel, documented
from chorus_server.api.schemas.openai.asking import MOST_TOKENS, OpenAIBody, OpenAIUsage, StreamOptions
from chorus_server.api.schemas.openai.lenient import Refused
from chorus_server.api.schemas.openai.messages import Conversation
from chorus_server.errors import InvalidInputError


def texts_of(value: Any, field: str) -> list[Conversation]:
    """A text, or each of a list. Raises InvalidInputError, also for token ids, which are another
    vocabulary's."""
    if isinstance(value, str):
        return [Conversation(value.encode(), field)]
    if not isinstance(value, list) or not value:
        raise InvalidInputError("Send a text, or a list of texts.", field=field)
    for at, text in enumerate(value):
        if isinstance(text, int | list) and not isinstance(text, bool):
            raise InvalidInputError(
                "These are token ids, of a vocabulary that is not this model's: send texts. "
                "langchain_openai.OpenAIEmbeddings sends texts with check_embedding_ctx_length=False.",
                field=field,
            )
        if not isinstance(text, str):
            raise InvalidInputError("Send a text.", field=f"{field}.{at}")
    return [Conversation(text.encode(), f"{field}.{at}") for at, text in enumerate(value)]


class CompletionsBody(OpenAIBody):
    """One text or several, each answered `n` times."""

    model_config = ConfigDict(json_schema_extra=documented(examples.COMPLETIONS))
    most: ClassVar[Mapping[str, int]] = {"prompt": MAX_ROWS}

    prompt: Annotated[
        Any,
        BeforeValidator(lambda value: texts_of(value, "prompt")),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = Field(
        description="A text or a list of texts; for a template of several fields, the text of a JSON object "
        "of them. Token ids are refused."
    )
    max_tokens: int | None = Field(None, ge=1, description=MOST_TOKENS)
    best_of: int | None = Field(
        None,
        ge=1,
        le=64,
        description="So many are made, and the `n` with the best mean log probability answer; not streamed.",
    )
    logprobs: int | None = Field(
        None, ge=0, le=5, description="Log probabilities of the tokens, and of this many likeliest ones."
    )
    top_logprobs: Annotated[Any, Refused("Send logprobs, a number, instead.", (0,))] = None
    echo: bool | None = Field(
        None, description="The prompt stands before its answer. It has no log probabilities."
    )
    suffix: Annotated[
        Any, Refused("The model answers an input, and nothing can come after: put it into the prompt.", ("",))
    ] = None
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="`include_usage`.")


class CompletionLogprobs(AnswerModel):
    """Of the tokens, under the unmodified distribution."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(AnswerModel):
    """One answer."""

    index: int = Field(description="Position of the prompt times `n`, and the position among its answers.")
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionsAnswer(AnswerModel):
    """All answers, or a chunk of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: OpenAIUsage | None = None
