"""`GET /v1/model`: the resident base model."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from chorus_server.api.door.auth import MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.responses import errors
from chorus_server.api.inference.answers import json_response
from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.services import services_of
from chorus_server.api.version import VERSION

router = APIRouter(route_class=ChorusRoute, tags=["server"])


class ModelAnswer(AnswerModel):
    """The base model and the limits of requests."""

    name: str
    fingerprint: str = Field(description="Fingerprint of architecture and weights; versions name it.")
    vocabulary_digest: str
    config: dict[str, Any]
    parameters: int
    compute_dtype: str
    matrix_dtype: str = Field(description="Type that the model's matrices are kept and multiplied in.")
    system_fingerprint: str = Field(
        description="Short name of base, types, jaxlib and compiled shapes; servers with different ones may "
        "round differently."
    )
    layout: str
    max_input_tokens: int
    max_new_tokens: int
    prompt_rows: int = Field(description="Rows of the device's prompt table.")
    version: str = Field(description="Version of the server.")


@router.get("/v1/model", response_model=ModelAnswer, responses=errors(400, 401, 403, 429, 503))
async def model(request: Request, principal: MayRead) -> Response:
    """The base model."""
    services = services_of(request)
    base = services.base()
    limits = services.limits()
    return json_response(
        {
            "name": base.name,
            "fingerprint": base.fingerprint,
            "vocabulary_digest": base.vocabulary_digest,
            "config": dict(base.config),
            "parameters": base.parameters,
            "compute_dtype": base.compute_dtype,
            "matrix_dtype": base.matrix_dtype,
            "system_fingerprint": base.system_fingerprint,
            "layout": base.layout,
            "max_input_tokens": limits.max_input_tokens,
            "max_new_tokens": limits.max_new_tokens,
            "prompt_rows": base.prompt_rows,
            "version": VERSION,
        }
    )
