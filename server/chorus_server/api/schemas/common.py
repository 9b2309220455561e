"""What every schema shares."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict, JsonValue
from pydantic_core import PydanticCustomError

from chorus_server.engine.sampling import MAX_LOGIT_BIASES

MAX_REFERENCE_CHARACTERS = 256

MAX_MEMBERS = 64
"""Most members of an ensemble."""

MAX_ROWS = 1024
"""Most inputs in one request; for an ensemble, inputs times members."""

MAX_LABELS = 256
"""Most labels of one classification."""

USUAL_NEW_TOKENS = 32
"""New tokens where neither the request nor the version sets a number."""

MAX_UNFINISHED_JOBS = 16
"""Most unfinished jobs of a kind that a tenant without a limit of its own may have."""


def documented(examples: list[dict[str, Any]]) -> JsonDict:
    """`json_schema_extra` with these examples."""
    return {"examples": cast(JsonValue, examples)}


class AnswerModel(BaseModel):
    """Base of answers. It documents them, and tests check real answers against it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class StoreTrouble(AnswerModel):
    """What is wrong with the database, since when, and what that means."""

    status: Literal["unreadable", "unfollowed", "unwritable"]
    since_seconds: float
    message: str


class QuotaDetail(AnswerModel):
    """The limit that a request was refused for."""

    of: Literal["tenant", "key"]
    limit: str = Field(description="Its path in the limits: `per_minute.requests`.")
    window: Literal["minute", "month"] | None = Field(description="Null for what counts at one time.")
    most: int
    used: int = Field(description="By everybody with this tenant or key, before this request.")


class ErrorDetail(AnswerModel):
    """What went wrong."""

    code: str = Field(description="Stable, machine-readable error code.")
    message: str = Field(description="What was received, what was expected and what to do.")
    field: str | None = Field(description="Dotted path of the field at fault, if there is one.")
    request_id: str
    quota: QuotaDetail | None = Field(None, description="Only with the code `limit_exceeded`.")


class ErrorAnswer(AnswerModel):
    """The shape of every error."""

    error: ErrorDetail


Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REFERENCE_CHARACTERS,
        description="`task`, `tenant/task`, `tenant/task@3`, `tenant/task@alias`; without a suffix, `@live`.",
    ),
]


def _check_input(value: Any) -> Any:
    """The text, or each field's, as UTF-8: a long one comes so, and all are treated alike."""
    if isinstance(value, str | bytes):
        return _utf8(value)
    if not isinstance(value, dict):
        raise PydanticCustomError("input_type", "An input is a text or an object of template fields")
    if not value or len(value) > 64:
        raise PydanticCustomError("input_fields", "An object of template fields has 1 to 64 fields")
    if not all(isinstance(text, str | bytes) for text in value.values()):
        raise PydanticCustomError("input_fields", "Every template field is a text")
    return {name: _utf8(text) for name, text in value.items()}


def _utf8(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


Input = Annotated[
    Any,
    BeforeValidator(_check_input),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
            ],
            "description": "A text, or an object with the fields of the task's template.",
        }
    ),
]


def _check_stop(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("stop_type", "stop is a text or a list of texts")
    if len(texts) > 8 or not all(1 <= len(text) <= 64 for text in texts):
        raise PydanticCustomError("stop_range", "stop takes at most 8 texts of 1 to 64 characters")
    return texts


Stop = Annotated[
    Any,
    BeforeValidator(_check_stop),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 8}],
            "description": "Generation stops at the first of these texts; the answer ends before it.",
        }
    ),
]


def _check_logit_bias(value: Any) -> Any:
    if not isinstance(value, dict):
        raise PydanticCustomError("bias_type", "logit_bias is an object: a bias for each token id")
    if len(value) > MAX_LOGIT_BIASES:
        raise PydanticCustomError("bias_count", f"logit_bias takes at most {MAX_LOGIT_BIASES} token ids")
    if not all(isinstance(id, str) and re.fullmatch(r"0|[1-9][0-9]{0,8}", id) for id in value):
        raise PydanticCustomError("bias_id", 'The names in logit_bias are token ids from 0, such as "1234"')
    for bias in value.values():
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise PydanticCustomError("bias_range", "Every bias in logit_bias is a number from -100 to 100")
    return value


LogitBias = Annotated[
    Any,
    BeforeValidator(_check_logit_bias),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "maxProperties": MAX_LOGIT_BIASES,
            "description": "A bias for each of some token ids, added to the id's logit.",
        }
    ),
]

Weight = Annotated[float, Field(gt=0, le=1e6, strict=False)]
