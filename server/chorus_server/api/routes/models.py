"""`/v1/models`: what the `model` of a body may be, as OpenAI's and TypeSafe's clients list it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.http.parameters import owner_of_task
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute, openai_errors
from chorus_server.api.openai.listing import MAX_MODELS, NamedModel, fixed_models, models_after
from chorus_server.api.schemas.openai.models import DeletedModel, ListedModel, ModelsAnswer
from chorus_server.api.services import acting_store, services_of
from chorus_server.errors import InvalidInputError
from prompts_store.errors import ConflictError
from prompts_store.store import PromptStore
from prompts_store.tasks.references import parse_reference

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])

ModelInPath = Annotated[
    str, Path(max_length=512, description="A model's name; a slash in it may be written as `%2F`.")
]


@router.get("/v1/models", tags=["decisions"], response_model=ModelsAnswer, responses=OPENAI_ERRORS)
async def list_models(
    request: Request,
    principal: MayRead,
    limit: Annotated[int, Query(ge=1, le=MAX_MODELS, description="Models per page.")] = MAX_MODELS,
    after: Annotated[
        str | None, Query(max_length=256, description="The last `id` of the previous page.")
    ] = None,
) -> Response:
    """The operator's names, the base model, the tenant's tasks and its packs."""
    found, more = await models_after(services_of(request), principal, after, limit)
    data = [_listed(each, principal.tenant) for each in found]
    described = (
        {"name": each.name, "description": each.description, "release_date": each.release_date}
        for each in found
    )
    before = {"object": "list", "data": data, "has_more": more}
    return await list_response("models", described, before=before)


@router.get("/v1/models/{model:path}", response_model=ListedModel, responses=OPENAI_ERRORS)
async def show_model(request: Request, principal: MayRead, model: ModelInPath) -> Response:
    """One model: of a list, a version, or another tenant's that the key may ask."""
    services = services_of(request)
    known = {each.name: each for each in fixed_models(services)} | {
        services.base().name: NamedModel(services.base().name, "the base model")
    }
    if model in known:
        return json_response(_listed(known[model], principal.tenant))
    library = services.library
    pack = await library.pack(model, principal.tenant, patterns=principal.tasks)
    found = (
        await library.resolve(model, principal.tenant, "model", patterns=principal.tasks)
        if pack is None
        else pack
    )
    return json_response(_listed(NamedModel(model, "", found.created_at), found.tenant))


@router.delete("/v1/models/{model:path}", response_model=DeletedModel, responses=openai_errors(409))
async def delete_model(request: Request, principal: MayWrite, model: ModelInPath) -> Response:
    """Tombstone a version (`task@3`), or a task with all of its versions (`task`, or its only version)."""
    services = services_of(request)
    if model in {each.name for each in fixed_models(services)} | {services.base().name}:
        raise InvalidInputError("The base model and the operator's names are not deleted.", field="model")
    parsed = parse_reference(model, tenant=principal.tenant, field="model")
    if "@" in model and parsed.version is None:
        raise InvalidInputError(
            "An alias is no model of its own: name a version by its number, or the task.", field="model"
        )
    owner = owner_of_task(principal, parsed.tenant, parsed.task)
    store = acting_store(request)
    await services.library.write(_delete, store, owner, parsed.task, parsed.version, principal.name)
    return json_response({"id": model, "object": "model", "deleted": True})


def _delete(store: PromptStore, tenant: str, task: str, number: int | None, by: str) -> None:
    """Of a task's only version, which its alias names, the task goes too: its number is not used again."""
    if number is None:
        store.delete_task(tenant, task, deleted_by=by)
        return
    try:
        store.delete_version(tenant, task, number, deleted_by=by)
    except ConflictError as error:
        try:
            store.delete_task(tenant, task, only_version=number, deleted_by=by)
        except ConflictError:
            raise error from None


def _listed(model: NamedModel, owner: str) -> Mapping[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": owner}
