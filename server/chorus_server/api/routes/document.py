"""`/openapi.json` and `/docs`. If the server has a key, they need it like every other route."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi

from chorus_server.api.door.auth import MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.inference.answers import json_response
from chorus_server.api.schemas import examples
from chorus_server.api.schemas.events import event_schemas
from chorus_server.api.services import services_of

_EXAMPLES = {
    "GenerateBody": examples.GENERATE,
    "ClassifyBody": examples.CLASSIFY,
    "EnsembleBody": examples.ENSEMBLE,
    "EnsembleVersionBody": examples.ENSEMBLE_VERSION,
    "PackVersionBody": examples.PACK_VERSION,
    "DecisionsBody": examples.DECISIONS,
    "CompletionsBody": examples.COMPLETIONS,
    "ChatBody": examples.CHAT,
    "ResponsesBody": examples.RESPONSES,
    "SystemOneBody": examples.SYSTEM_ONE,
    "AliasBody": examples.ALIAS,
    "RollbackBody": examples.ROLLBACK,
    "JobDocument": examples.TUNING_JOB,
    "FineTuningBody": examples.FINE_TUNING,
    "CalibrationDocument": examples.CALIBRATION,
    "EvaluationDocument": examples.EVALUATION,
    "BatchDocument": examples.BATCH,
    "TenantBody": examples.TENANT,
    "TenantChanges": examples.TENANT_CHANGES,
    "KeyBody": examples.KEY,
}

router = APIRouter(route_class=ChorusRoute, include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request, principal: MayRead) -> Response:
    """The OpenAPI document."""
    return await services_of(request).text.run(_written, request.app)


@router.get("/docs")
async def docs(request: Request, principal: MayRead) -> Response:
    """The document as a web page. Its script comes from a CDN."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title="Chorus")


def _written(app: FastAPI) -> Response:
    """Runs on a thread, because making the document takes a while."""
    return json_response(openapi_document(app))


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document of an app, made once. FastAPI's own 422 is removed: a malformed
    request is a 400 here, except where another API says otherwise."""
    made: dict[str, Any] | None = app.openapi_schema
    if made is not None:
        return made
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        # A job document has one schema, for requests and answers.
        separate_input_output_schemas=False,
    )
    for path in document["paths"].values():
        for operation in path.values():
            invalid = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(invalid):
                del operation["responses"]["422"]
    components = document.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    components["schemas"] = event_schemas() | components["schemas"]
    # FastAPI drops nulls from examples, but a null task means the base model.
    for name, given in _EXAMPLES.items():
        components["schemas"][name]["examples"] = given
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    app.openapi_schema = document
    return document
