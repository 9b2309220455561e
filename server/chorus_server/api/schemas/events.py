"""Server-sent events of the routes that stream, and their description in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic.json_schema import models_json_schema

from chorus_server.api.schemas.common import AnswerModel, ErrorAnswer, ErrorDetail
from chorus_server.api.schemas.inference import GenerateResult
from chorus_server.api.schemas.tuning import JobEventAnswer
from prompts_store.jobs.records import JobStatus

_REF = "#/components/schemas/{model}"

Events = Mapping[str, type[AnswerModel]]
"""The model of an event's data, by the event's name."""


class TokenEvent(AnswerModel):
    """More of one choice's text. All texts joined are the whole text."""

    index: int = Field(description="Position of the item in the request.")
    choice: int
    text: str
    tokens: list[int] = Field(description="Empty if the event only releases text that was held back.")


class ResultEvent(AnswerModel):
    """One item is finished."""

    index: int
    result: GenerateResult


class ErrorEvent(AnswerModel):
    """One item failed."""

    index: int
    error: ErrorDetail


class DoneEvent(AnswerModel):
    """The last event: every item has had its result or error."""

    id: str


class JobDone(AnswerModel):
    """The last event: the job is over."""

    id: str
    status: JobStatus


GENERATE_EVENTS: Events = {
    "token": TokenEvent,
    "result": ResultEvent,
    "error": ErrorEvent,
    "done": DoneEvent,
}
JOB_EVENTS: Events = {"done": JobDone, "error": ErrorAnswer}
"""Event names besides those of the job's own events, which are named after their kind."""

_GENERATED = """event: token
data: {"index": 0, "choice": 0, "text": "positive", "tokens": [248]}

event: result
data: {"index": 0, "result": {"task": "acme/sst2", "version": 3, "digest": "5f2b", "text": "positive", \
"finish_reason": "stop", "truncated": false, \
"usage": {"input_tokens": 31, "prompt_tokens": 20, "output_tokens": 1}}}

event: done
data: {"id": "req_5c1f0e"}

"""
_HAPPENED = """id: 1
event: status
data: {"seq": 1, "at": "2026-01-01T00:00:00Z", "kind": "status", "data": {"status": "queued"}}

event: done
data: {"id": "job-5c1f0e", "status": "succeeded"}

"""


def event_schemas() -> dict[str, Any]:
    """JSON schemas of every event's data by name, for the document's components."""
    models = {*GENERATE_EVENTS.values(), *JOB_EVENTS.values()}
    _, schemas = models_json_schema(
        [(model, "serialization") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template=_REF,
    )
    found: dict[str, Any] = schemas["$defs"]
    return found


def generate_stream() -> dict[str, Any]:
    """The streamed answer of `/v1/generate`."""
    return _stream([_event(name, model) for name, model in GENERATE_EVENTS.items()], _GENERATED)


def job_stream() -> dict[str, Any]:
    """The streamed answer of a job's events."""
    happened = _event("status", JobEventAnswer)
    happened["properties"] |= {
        "event": {"type": "string", "description": "The event's `kind`.", "examples": ["status", "step"]},
        "id": {"type": "string", "description": "Its `seq`; send it as Last-Event-ID when you reconnect."},
    }
    ends = [_event(name, model) for name, model in JOB_EVENTS.items()]
    return _stream([happened, *ends], _HAPPENED)


def chunk_stream(model: type[AnswerModel]) -> dict[str, Any]:
    """The streamed answer of OpenAI's routes: events without a name."""
    chunk = _event("", model)
    del chunk["properties"]["event"]
    chunk["required"] = ["data"]
    ref = _REF.format(model=model.__name__)
    return {
        "schema": {"type": "string", "description": f"Events whose data is a chunk ({ref}), then [DONE]."},
        "itemSchema": chunk,
    }


def _event(name: str, model: type[AnswerModel]) -> dict[str, Any]:
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": _REF.format(model=model.__name__)},
    }
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {"event": {"const": name}, "data": data},
    }


def _stream(events: list[dict[str, Any]], example: str) -> dict[str, Any]:
    """OpenAPI 3.2 describes each event with `itemSchema`; older readers get `schema` and the example."""
    named = (
        f"{event['properties']['event'].get('const', 'KIND')} "
        f"({event['properties']['data']['contentSchema']['$ref'].rsplit('/', 1)[1]})"
        for event in events
    )
    description = f"Server-sent events; their data is JSON: {', '.join(named)}."
    return {
        "schema": {"type": "string", "description": description},
        "itemSchema": {"anyOf": events},
        "example": example,
    }
