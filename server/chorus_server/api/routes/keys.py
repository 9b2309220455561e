"""`/v1/keys`: make, list, show, change, revoke. An admin does so in its own tenant, an operator in any."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from chorus_server.api.door.auth import MayAdminister
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit, OperatedTenant, operated_tenant
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.records import key_json
from chorus_server.api.schemas.tenants import KeyAnswer, KeyBody, KeyChanges, KeyPage, NewKeyAnswer
from chorus_server.api.services import acting_store, services_of
from chorus_server.errors import ForbiddenError
from chorus_server.tenancy.principal import Principal, Scope

router = APIRouter(route_class=ChorusRoute, tags=["keys"])

KeyId = Annotated[str, Path(max_length=256, description="Of a key, `key-...`; never the key itself.")]


@router.post("/v1/keys", status_code=201, response_model=NewKeyAnswer, responses=WRITE_ERRORS)
async def create_key(
    request: Request, principal: MayAdminister, body: KeyBody, tenant: OperatedTenant = None
) -> Response:
    """Make a key. It is in this answer and nowhere else, so keep it now."""
    owner = operated_tenant(principal, tenant)
    _check_given(principal, body)
    services = services_of(request)
    made, secret = await services.save_and_see(
        acting_store(request).create_key,
        owner,
        body.name,
        scopes=[scope.value for scope in body.scopes],
        tasks=body.tasks,
        limits=body.limits,
        expires_at=body.expires_at,
        created_by=principal.name,
    )
    answer = json_response({**key_json(made), "key": secret}, 201)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get("/v1/keys", response_model=KeyPage, responses=READ_ERRORS)
async def list_keys(
    request: Request,
    principal: MayAdminister,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: OperatedTenant = None,
) -> Response:
    """A tenant's keys, newest first, also those that are over."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_keys, operated_tenant(principal, tenant), limit=limit, cursor=cursor
    )
    return await list_response("keys", map(key_json, page.items), after={"next_cursor": page.next_cursor})


@router.get("/v1/keys/{key}", response_model=KeyAnswer, responses=READ_ERRORS)
async def show_key(
    request: Request, principal: MayAdminister, key: KeyId, tenant: OperatedTenant = None
) -> Response:
    """One key."""
    library = services_of(request).library
    return json_response(
        key_json(await library.read(library.store.get_key, operated_tenant(principal, tenant), key))
    )


@router.patch("/v1/keys/{key}", response_model=KeyAnswer, responses=WRITE_ERRORS)
async def change_key(
    request: Request,
    principal: MayAdminister,
    key: KeyId,
    body: KeyChanges,
    tenant: OperatedTenant = None,
) -> Response:
    """Change what a key may use. Every process on the database goes by it within a second."""
    services = services_of(request)
    changed = await services.save_and_see(
        acting_store(request).update_key, operated_tenant(principal, tenant), key, limits=body.limits
    )
    return json_response(key_json(changed))


@router.delete("/v1/keys/{key}", response_model=KeyAnswer, responses=WRITE_ERRORS)
async def revoke_key(
    request: Request, principal: MayAdminister, key: KeyId, tenant: OperatedTenant = None
) -> Response:
    """Revoke a key, for good. Every process on the database refuses it within a second."""
    services = services_of(request)
    revoked = await services.save_and_see(
        acting_store(request).revoke_key, operated_tenant(principal, tenant), key
    )
    return json_response(key_json(revoked))


def _check_given(principal: Principal, body: KeyBody) -> None:
    """Nobody gives what he does not have. Raises ForbiddenError naming the scope or the pattern."""
    for i, scope in enumerate(body.scopes):
        if scope is Scope.METRICS and Scope.OPERATOR not in principal.scopes:
            raise ForbiddenError(
                "Only an operator gives the scope 'metrics:read': the metrics tell of all tenants.",
                field=f"scopes.{i}",
            )
        if scope not in principal.scopes:
            raise ForbiddenError(
                f"A key cannot give the scope {scope.value!r}, which it lacks itself: leave it out, or use "
                "another key.",
                field=f"scopes.{i}",
            )
    if principal.tasks is None:
        return
    if body.tasks is None:
        raise ForbiddenError(
            "Your key may name some tasks only, so a key that it makes does too: send tasks.", field="tasks"
        )
    for i, pattern in enumerate(body.tasks):
        owner, _, name = pattern.rpartition("/")
        if pattern not in principal.tasks and ("*" in pattern or not principal.may_name(name, owner or None)):
            raise ForbiddenError(
                "Your key may not name all of these tasks itself: send its own patterns, or names that they "
                "fit.",
                field=f"tasks.{i}",
            )
