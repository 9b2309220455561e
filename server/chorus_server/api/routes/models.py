"""`GET /v1/models`: what the `model` of a decision may be, as OpenAI's and TypeSafe's clients list it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayRead
from chorus_server.api.inference.answers import list_response
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute
from chorus_server.api.openai.model_names import BASE, mapped_names
from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.services import services_of
from prompts_store.pages import MAX_LIMIT
from prompts_store.records import Page

router = APIRouter(route_class=OpenAIRoute, tags=["decisions"])

_MOST = 1000
"""Most packs, and most tasks, of one list; the routes of both have pages."""


class ListedModel(AnswerModel):
    """One model, in the fields of both APIs."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class DescribedModel(AnswerModel):
    """The same one for TypeSafe's clients."""

    name: str
    description: str
    release_date: str


class ModelsAnswer(AnswerModel):
    """One list twice: `data` for OpenAI's clients, `models` for TypeSafe's."""

    object: Literal["list"]
    data: list[ListedModel]
    has_more: bool
    models: list[DescribedModel]


@router.get("/v1/models", response_model=ModelsAnswer, responses=OPENAI_ERRORS)
async def list_models(request: Request, principal: MayRead) -> Response:
    """The operator's names, the base model, the tenant's packs and its tasks."""
    services = services_of(request)
    library, store, base = services.library, services.library.store, services.base()
    packs, more_packs = await _all(library.read, store.list_packs, principal.tenant)
    tasks, more_tasks = await _all(library.read, store.list_tasks, principal.tenant)
    # Of names without a date, the oldest that all clients read.
    rows = [(name, "a name that the operator has mapped", None) for name in mapped_names(services.settings)]
    rows.append((BASE, f"the base model {base.name}", None))
    rows += [
        (pack.name, f"pack of {len(pack.latest.entries)} questions", pack.created_at)
        for pack in packs
        if principal.may_name(pack.name)
    ]
    rows += [
        (task.name, task.description or "task", task.created_at)
        for task in tasks
        if principal.may_name(task.name)
    ]
    listed: dict[str, tuple[str, int, str]] = {}
    for name, description, made in rows:
        when = (0, "1970-01-01") if made is None else (int(made.timestamp()), made.date().isoformat())
        listed.setdefault(name, (description, *when))
    data = [
        {"id": name, "object": "model", "created": created, "owned_by": principal.tenant}
        for name, (_, created, _) in listed.items()
    ]
    described = (
        {"name": name, "description": description, "release_date": date}
        for name, (description, _, date) in listed.items()
    )
    before = {"object": "list", "data": data, "has_more": more_packs or more_tasks}
    return await list_response("models", described, before=before)


async def _all(
    read: Callable[..., Awaitable[Page[Any]]], of: Callable[..., Page[Any]], tenant: str
) -> tuple[list[Any], bool]:
    """Up to `_MOST` items of a list, and whether there are more."""
    found: list[Any] = []
    cursor: str | None = None
    while len(found) < _MOST:
        page = await read(of, tenant, limit=MAX_LIMIT, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return found, cursor is not None
