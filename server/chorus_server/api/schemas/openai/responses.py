"""Body and answer of `/v1/responses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import MAX_LABELS, AnswerModel, documented
from chorus_server.api.schemas.decisions import DecisionUsage
from chorus_server.api.schemas.openai.asking import MOST_TOKENS, OpenAIBody, Silent
from chorus_server.api.schemas.openai.chat import MAX_MESSAGES
from chorus_server.api.schemas.openai.lenient import LenientBody, Refused
from chorus_server.api.schemas.openai.messages import Conversation, conversation_of

_STATELESS = "Answers are not stored: send the whole conversation as input."


MAX_INSTRUCTIONS = 100_000

_Key = Annotated[str, Field(max_length=64)]
_Value = Annotated[str, Field(max_length=512)]


def _conversation(value: Any) -> Conversation:
    return (
        Conversation(value.encode(), "input") if isinstance(value, str) else conversation_of(value, "input")
    )


class ResponseText(LenientBody):
    """How the answer is written."""

    format: dict[str, Any] | None = Field(
        None, description="`text`, or `json_schema` with one field that has an enum: its values are ranked."
    )
    verbosity: Annotated[Any, Refused("Send max_output_tokens.", ("medium",))] = None


class ResponsesBody(OpenAIBody):
    """A text or a conversation, of which the last message is answered."""

    model_config = ConfigDict(json_schema_extra=documented(examples.RESPONSES))
    most: ClassVar[Mapping[str, int]] = {"input": MAX_MESSAGES, "enum": MAX_LABELS}
    others: ClassVar[int] = 1024

    input: Annotated[
        Any,
        BeforeValidator(_conversation),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
    ] = Field(description="A text, or messages; the last one, the user's, is answered.")
    instructions: str | None = Field(
        None, max_length=MAX_INSTRUCTIONS, description="A system message before the others."
    )
    max_output_tokens: int | None = Field(None, ge=1, description=MOST_TOKENS)
    text: ResponseText | None = Field(None, description="`format`.")
    tools: list[dict[str, Any]] | None = Field(
        None, description="Functions of one argument that has an enum: its values are ranked."
    )
    tool_choice: str | dict[str, Any] | None = Field(
        None, description="Which of several tools is called; with `none`, none is."
    )
    metadata: dict[_Key, _Value] | None = Field(None, max_length=16, description="Stands in the answer.")
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="`auto` cuts an input that is too long, as `truncate` does."
    )
    n: Annotated[Any, Refused("One answer is made: send the request again with another seed.", (1,))] = None
    top_logprobs: Annotated[Any, Refused("Ask /v1/chat/completions.", (0,))] = None
    stream: Annotated[Any, Refused("Responses are not streamed: ask /v1/chat/completions.", (False,))] = None
    background: Annotated[Any, Refused("Send a batch instead.", (False,))] = None
    store: Annotated[Any, Refused("Answers are not stored.", (False,))] = None
    previous_response_id: Annotated[Any, Refused(_STATELESS)] = None
    conversation: Annotated[Any, Refused(_STATELESS)] = None
    prompt: Annotated[Any, Refused("No prompts of this kind are stored: send input.")] = None
    include: Annotated[Any, Refused("Nothing more can be included.", ([],))] = None
    reasoning: Silent = None
    max_tool_calls: Silent = None
    parallel_tool_calls: Silent = None
    stream_options: Silent = None


class OutputText(AnswerModel):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]


class OutputItem(AnswerModel):
    """A message, or the call of a tool."""

    type: Literal["message", "function_call"]
    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"] | None = None
    content: list[OutputText] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class IncompleteDetails(AnswerModel):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"]


class ResponseAnswer(AnswerModel):
    """The answer."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    metadata: dict[str, Any]
    model: str
    system_fingerprint: str
    warnings: list[str] | None = None
    output: list[OutputItem]
    parallel_tool_calls: bool
    temperature: float | None
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    usage: DecisionUsage
