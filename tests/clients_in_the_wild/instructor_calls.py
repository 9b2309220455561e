"""Run in the environment of OpenAI's client 2: Instructor, in its modes of tools and of a schema.

Arguments: the server's URL, a key.
"""

from __future__ import annotations

import enum
import json
import sys
from typing import Any, Literal

import instructor
import openai
from pydantic import BaseModel

url, key = sys.argv[1:]
TEXTS = ["it 's a charming and often affecting journey .", "a joyless mess"]


class Tone(enum.Enum):
    """An enum of its own, which pydantic describes by a reference within the schema."""

    NEGATIVE = "negative"
    POSITIVE = "positive"


class Review(BaseModel):
    tone: Tone


class Judged(BaseModel):
    """How a review sounds."""

    tone: Literal["negative", "positive"]


said: dict[str, Any] = {}
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai.OpenAI(base_url=url, api_key=key), mode=mode)
    said[mode.name] = []
    for text in TEXTS:
        messages = [{"role": "user", "content": text}]
        review = client.chat.completions.create(model="sentiment", messages=messages, response_model=Review)
        judged, whole = client.chat.completions.create_with_completion(
            model="sentiment", messages=messages, response_model=Judged
        )
        said[mode.name].append([review.tone.value, judged.tone, whole.usage.prompt_tokens])
sys.stdout.write(json.dumps(said))
