"""Run in the environment of OpenAI's client 2: LiteLLM asks a server as one of its custom OpenAI endpoints.

Arguments: the server's URL, a key.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import litellm
from pydantic import BaseModel

url, key = sys.argv[1:]
TEXT = "it 's a charming and often affecting journey ."
chorus: dict[str, Any] = {"api_base": url, "api_key": key}
messages = [{"role": "user", "content": TEXT}]
said: dict[str, Any] = {}


class Tone(BaseModel):
    """How a review sounds."""

    tone: Literal["negative", "positive"]


answer: Any = litellm.completion(model="openai/sentiment", messages=messages, **chorus)
said["completion"] = [answer.choices[0].message.content, answer.choices[0].finish_reason]
said["usage"] = [answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens]
chunks: list[Any] = list(
    litellm.completion(
        model="openai/sentiment",
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        **chorus,
    )
)
said["stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
used = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
said["stream_usage"] = [used[-1].prompt_tokens, used[-1].completion_tokens, used[-1].total_tokens]
text: Any = litellm.text_completion(model="text-completion-openai/sentiment", prompt=TEXT, **chorus)
said["text_completion"] = text.choices[0].text
tool = {
    "type": "function",
    "function": {"name": "judge", "description": "How it sounds.", "parameters": Tone.model_json_schema()},
}
called: Any = litellm.completion(
    model="openai/sentiment",
    messages=messages,
    tools=[tool],
    tool_choice={"type": "function", "function": {"name": "judge"}},
    **chorus,
)
call = called.choices[0].message.tool_calls[0]
said["tool"] = [call.function.name, json.loads(call.function.arguments)]
shaped: Any = litellm.completion(model="openai/sentiment", messages=messages, response_format=Tone, **chorus)
said["response_format"] = json.loads(shaped.choices[0].message.content)
router = litellm.Router(
    model_list=[{"model_name": "reviews", "litellm_params": {"model": "openai/sentiment", **chorus}}]
)
routed: Any = router.completion(model="reviews", messages=messages)
said["router"] = routed.choices[0].message.content
said["errors"] = []
for call in (
    lambda: litellm.completion(model="openai/nobody", messages=messages, **chorus),
    lambda: litellm.completion(model="openai/sentiment", messages=messages, api_base=url, api_key="sk-0000"),
    lambda: litellm.embedding(model="openai/sentiment", input=[TEXT], **chorus),
):
    try:
        call()
        said["errors"].append(None)
    except (
        litellm.exceptions.NotFoundError,
        litellm.exceptions.AuthenticationError,
        litellm.exceptions.BadRequestError,
    ) as error:
        said["errors"].append([type(error).__name__, str(error)])
sys.stdout.write(json.dumps(said))
