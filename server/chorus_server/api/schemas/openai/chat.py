"""Body and answer of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import MAX_LABELS, AnswerModel, documented
from chorus_server.api.schemas.openai.asking import (
    MOST_TOKENS,
    OpenAIBody,
    OpenAIUsage,
    Silent,
    StreamOptions,
)
from chorus_server.api.schemas.openai.lenient import Refused
from chorus_server.api.schemas.openai.messages import conversation_of

MAX_MESSAGES = 4096

_NO_SOUND = "The model reads and writes text only."
_NO_TOOL_OF_THE_OLD_KIND = "Send tools instead."


class ChatBody(OpenAIBody):
    """A conversation, of which the last message is answered."""

    model_config = ConfigDict(json_schema_extra=documented(examples.CHAT))
    most: ClassVar[Mapping[str, int]] = {"messages": MAX_MESSAGES, "enum": MAX_LABELS}
    others: ClassVar[int] = 1024

    messages: Annotated[
        Any,
        BeforeValidator(lambda value: conversation_of(value, "messages")),
        WithJsonSchema({"type": "array", "items": {"type": "object"}, "minItems": 1}),
    ] = Field(
        description="The last one, the user's, is answered. What the system says and what came before go "
        "into the template's fields `system` and `history`, where it has them.",
    )
    max_completion_tokens: int | None = Field(None, ge=1, description=MOST_TOKENS)
    max_tokens: int | None = Field(None, ge=1, description="The same by its older name.")
    logprobs: bool | None = Field(None, description="Log probabilities of the tokens.")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="With those of this many likeliest tokens; needs `logprobs`."
    )
    response_format: dict[str, Any] | None = Field(
        None, description="`text`, or `json_schema` with one field that has an enum: its values are ranked."
    )
    tools: list[dict[str, Any]] | None = Field(
        None, description="Functions of one argument that has an enum: its values are ranked."
    )
    tool_choice: str | dict[str, Any] | None = Field(
        None, description="Which of several tools is called; with `none`, none is."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="`include_usage`.")
    functions: Annotated[Any, Refused(_NO_TOOL_OF_THE_OLD_KIND, ([],))] = None
    function_call: Annotated[Any, Refused(_NO_TOOL_OF_THE_OLD_KIND, ("none",))] = None
    modalities: Annotated[Any, Refused(_NO_SOUND, (["text"], []))] = None
    audio: Annotated[Any, Refused(_NO_SOUND)] = None
    web_search_options: Annotated[Any, Refused("The server searches no web.")] = None
    store: Annotated[Any, Refused("Answers are not stored.", (False,))] = None
    verbosity: Annotated[Any, Refused("Send max_completion_tokens.", ("medium",))] = None
    reasoning_effort: Silent = None
    prediction: Silent = None
    parallel_tool_calls: Silent = None


class ChatTopLogprob(AnswerModel):
    """One of the likeliest tokens in a place."""

    token: str
    bytes: list[int] | None
    logprob: float | None


class ChatLogprob(ChatTopLogprob):
    """A token of the answer."""

    top_logprobs: list[ChatTopLogprob]


class ChatLogprobs(AnswerModel):
    """Of the tokens, under the unmodified distribution."""

    content: list[ChatLogprob]
    refusal: None


class CalledFunction(AnswerModel):
    """The tool, and its arguments as a JSON text."""

    name: str
    arguments: str


class ToolCall(AnswerModel):
    """One call of a tool. `index` is in chunks only."""

    index: int | None = None
    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(AnswerModel):
    """What the model says. In a chunk, only what is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(AnswerModel):
    """One answer; in a chunk, a `delta` in place of the `message`."""

    index: int
    message: ChatMessage | None = None
    delta: ChatMessage | None = None
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatAnswer(AnswerModel):
    """All answers, or a chunk of a stream."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    warnings: list[str] | None = Field(
        None, description="What of the conversation the version's template has no field for."
    )
    choices: list[ChatChoice]
    usage: OpenAIUsage | None = None
