"""Run in either environment: what OpenAI's client sends besides the question, and what it does with refusals.

Arguments: the server's URL, the keys of two tenants, and one that may ask one question at a time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import openai

url, acme_key, birch_key, narrow_key = sys.argv[1:]
TEXT = "a joyless mess"
said: dict[str, Any] = {}


def client_of(key: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, _strict_response_validation=True, **options)


def refused(call: Callable[[], Any]) -> dict[str, Any] | None:
    """What the client makes of a refusal; nothing when the call succeeds."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "type": error.type,
            "param": error.param,
            "code": error.code,
            "message": error.message,
            "request_id": error.request_id,
        }
    return None


acme, birch = client_of(acme_key), client_of(birch_key)
messages = [{"role": "user", "content": TEXT}]
said["wrong_key"] = refused(client_of("sk-0000").models.list)
said["no_model"] = refused(lambda: acme.chat.completions.create(model="nobody", messages=messages))
said["no_model_completion"] = refused(lambda: acme.completions.create(model="nobody", prompt=TEXT))
said["no_messages"] = refused(lambda: acme.chat.completions.create(model="base", messages=[]))
said["token_ids"] = refused(lambda: acme.completions.create(model="base", prompt=[1, 2, 3]))
said["embeddings"] = refused(lambda: acme.embeddings.create(model="base", input=TEXT))
said["best_of"] = refused(lambda: acme.completions.create(model="base", prompt=TEXT, best_of=3))
said["audio"] = refused(
    lambda: acme.chat.completions.create(
        model="base", messages=messages, modalities=["text", "audio"], audio={"voice": "ash", "format": "wav"}
    )
)
said["no_route"] = refused(lambda: acme.images.generate(model="base", prompt=TEXT))

# An organisation, a project, and values that ask for nothing.
member = client_of(acme_key, organization="org-acme", project="proj_reviews")
plain = acme.completions.create(model="base", prompt=TEXT, max_tokens=4, temperature=0)
noisy = member.completions.create(
    model="base",
    prompt=TEXT,
    max_tokens=4,
    temperature=0,
    best_of=1,
    echo=False,
    frequency_penalty=0,
    logit_bias={},
    logprobs=None,
    n=1,
    presence_penalty=0,
    seed=7,
    stop=None,
    suffix=None,
    top_p=1,
    user="someone",
    extra_body={"field_of_next_year": {"deep": [1]}},
)
chatty = member.chat.completions.create(
    model="base",
    messages=[{"role": "user", "content": [{"type": "text", "text": TEXT}], "name": "someone"}],
    max_completion_tokens=4,
    temperature=0,
    frequency_penalty=0,
    logit_bias={},
    logprobs=False,
    metadata={"for": "nothing"},
    modalities=["text"],
    n=1,
    parallel_tool_calls=True,
    presence_penalty=0,
    prompt_cache_key="a",
    reasoning_effort=None,
    response_format={"type": "text"},
    safety_identifier="b",
    seed=7,
    service_tier="auto",
    stop=[],
    store=False,
    stream=False,
    tools=[],
    top_p=1,
    user="someone",
    verbosity=None,
)
said["neutral"] = [plain.choices[0].text, noisy.choices[0].text, chatty.choices[0].message.content]
said["request_ids"] = [plain._request_id, noisy._request_id, chatty._request_id]
raw = acme.completions.with_raw_response.create(model="base", prompt=TEXT, max_tokens=2)
said["raw"] = [raw.headers["x-request-id"] == raw.parse()._request_id, raw.headers.get("x-request-id")]

# Two tenants.
file = acme.files.create(file=("rows.jsonl", b'{"prompt": "a", "completion": "b"}\n'), purpose="fine-tune")
said["foreign"] = [
    refused(lambda: birch.files.retrieve(file.id)),
    refused(lambda: birch.files.content(file.id)),
    refused(lambda: birch.files.delete(file.id)),
    refused(lambda: birch.fine_tuning.jobs.create(model="base", training_file=file.id)),
    refused(
        lambda: birch.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
    ),
]
said["absent"] = refused(lambda: birch.files.retrieve("file-000000000000000000000000"))
said["foreign_list"] = [each.id for each in birch.files.list()]
acme.files.delete(file.id)


long = {"model": "base", "prompt": TEXT, "max_tokens": 64, "temperature": 0, "logit_bias": {"1": -100}}
"""A question whose answer does not end by itself."""


async def at_once(most_retries: int) -> list[str]:
    """Answers, or names of errors, to three questions at once with a key that may have one in flight."""
    async with openai.AsyncOpenAI(base_url=url, api_key=narrow_key, max_retries=most_retries) as several:
        asked = [several.completions.create(**long) for _ in range(3)]
        done = await asyncio.gather(*asked, return_exceptions=True)
    return [type(each).__name__ if isinstance(each, Exception) else each.choices[0].text for each in done]


said["alone"] = acme.completions.create(**long).choices[0].text
said["at_once"] = asyncio.run(at_once(100))
said["impatient"] = asyncio.run(at_once(0))

raw = client_of(narrow_key).completions.with_raw_response.create(model="base", prompt=TEXT, max_tokens=2)
said["remaining"] = raw.headers.get("x-ratelimit-remaining-requests")

# A stream that is late, one that is read to its end, and some that are left: on a busy machine the answer of
# one may have come to its end before.
lenient = openai.OpenAI(base_url=url, api_key=acme_key)
try:
    list(lenient.completions.create(stream=True, extra_body={"deadline_seconds": 0.01}, **long))
    said["late"] = None
except openai.APIError as error:
    said["late"] = [error.code, error.type]
said["read"] = "".join(each.choices[0].text for each in lenient.completions.create(stream=True, **long))
said["left"] = []
for _ in range(5):
    with lenient.completions.create(stream=True, **long) as stream:
        said["left"].append(next(iter(stream)).choices[0].text)
sys.stdout.write(json.dumps(said))
