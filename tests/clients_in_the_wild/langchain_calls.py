"""Run in the environment of OpenAI's client 2: LangChain's chat model, completions and embeddings.

Arguments: the server's URL, a key.
"""

from __future__ import annotations

import asyncio
import enum
import json
import sys
from typing import Any

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field, SecretStr

url, key = sys.argv[1:]
TEXT = "it 's a charming and often affecting journey ."
OTHER = "a joyless mess"
said: dict[str, Any] = {}


class Tone(enum.Enum):
    """An enum of its own, which LangChain describes by a reference within the schema."""

    NEGATIVE = "negative"
    POSITIVE = "positive"


class Review(BaseModel):
    """How a review sounds."""

    tone: Tone = Field(description="of the whole")


model = ChatOpenAI(model="sentiment", base_url=url, api_key=SecretStr(key), stream_usage=True)
answer = model.invoke(TEXT)
said["invoke"] = [answer.content, answer.response_metadata["finish_reason"]]
said["usage"] = answer.usage_metadata
chunks = list(model.stream(TEXT))
said["stream"] = "".join(str(chunk.content) for chunk in chunks)
said["stream_usage"] = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
said["batch"] = [each.content for each in model.batch([TEXT, OTHER, TEXT])]
said["history"] = model.invoke(
    [SystemMessage("You judge reviews."), HumanMessage(OTHER), AIMessage("negative"), HumanMessage(TEXT)]
).content
said["async"] = asyncio.run(model.ainvoke(OTHER)).content
said["logprobs"] = model.bind(logprobs=True, top_logprobs=2).invoke(TEXT).response_metadata["logprobs"]
said["structured"] = {}
for method in ("json_schema", "function_calling"):
    review: Any = model.with_structured_output(Review, method=method).invoke(OTHER)
    said["structured"][method] = review.tone.value
by_responses = ChatOpenAI(model="sentiment", base_url=url, api_key=SecretStr(key), use_responses_api=True)
said["responses"] = by_responses.invoke(TEXT).text
completing = OpenAI(model="sentiment", base_url=url, api_key=SecretStr(key), temperature=0, max_tokens=16)
said["completions"] = [each.generations[0][0].text for each in [completing.generate([TEXT])]]
said["completion_stream"] = "".join(completing.stream(TEXT))
said["embeddings"] = []
for checked in (True, False):
    embeddings = OpenAIEmbeddings(
        model="sentiment", base_url=url, api_key=SecretStr(key), check_embedding_ctx_length=checked
    )
    try:
        embeddings.embed_query(TEXT)
    except openai.BadRequestError as error:
        said["embeddings"].append([error.param, error.message])
sys.stdout.write(json.dumps(said))
