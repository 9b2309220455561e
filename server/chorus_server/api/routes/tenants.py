"""`/v1/tenants`: make, list, show, change, suspend, resume, delete. For operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from chorus_server.api.door.auth import MayOperate
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit, Prefix
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.records import tenant_json
from chorus_server.api.schemas.tenants import TenantAnswer, TenantBody, TenantChanges, TenantPage
from chorus_server.api.services import acting_store, services_of
from chorus_server.errors import ConflictError
from prompts_store.tenants.records import Retention, TenantStatus

router = APIRouter(route_class=ChorusRoute, tags=["tenants"])

TenantInPath = Annotated[str, Path(max_length=256, description="A tenant.")]


@router.post("/v1/tenants", status_code=201, response_model=TenantAnswer, responses=WRITE_ERRORS)
async def create_tenant(request: Request, principal: MayOperate, body: TenantBody) -> Response:
    """Make a tenant. Its name is never given again, also after it was deleted."""
    services = services_of(request)
    made = await services.save_and_see(
        acting_store(request).create_tenant,
        body.name,
        display_name=body.display_name,
        weight=body.weight,
        limits=body.limits,
        retention=Retention(body.retention.usage_days, body.retention.audit_days),
        created_by=principal.name,
    )
    return json_response(tenant_json(made), 201)


@router.get("/v1/tenants", response_model=TenantPage, responses=READ_ERRORS)
async def list_tenants(
    request: Request,
    principal: MayOperate,
    limit: Limit = 50,
    cursor: Cursor = None,
    prefix: Prefix = None,
    status: Annotated[
        TenantStatus | None, Query(description="Only tenants that have it. Left out: all but the deleted.")
    ] = None,
) -> Response:
    """Tenants by name."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_tenants, prefix=prefix or "", status=status, limit=limit, cursor=cursor
    )
    tenants = map(tenant_json, page.items)
    return await list_response("tenants", tenants, after={"next_cursor": page.next_cursor})


@router.get("/v1/tenants/{tenant}", response_model=TenantAnswer, responses=READ_ERRORS)
async def show_tenant(request: Request, principal: MayOperate, tenant: TenantInPath) -> Response:
    """One tenant."""
    library = services_of(request).library
    return json_response(tenant_json(await library.read(library.store.get_tenant, tenant)))


@router.patch("/v1/tenants/{tenant}", response_model=TenantAnswer, responses=WRITE_ERRORS)
async def change_tenant(
    request: Request, principal: MayOperate, tenant: TenantInPath, body: TenantChanges
) -> Response:
    """Change what is sent. Every process on the database goes by it within a second."""
    services, kept = services_of(request), body.retention
    changed = await services.save_and_see(
        acting_store(request).update_tenant,
        tenant,
        display_name=body.display_name,
        weight=body.weight,
        limits=body.limits,
        retention=None if kept is None else Retention(kept.usage_days, kept.audit_days),
    )
    return json_response(tenant_json(changed))


@router.post("/v1/tenants/{tenant}/suspend", response_model=TenantAnswer, responses=WRITE_ERRORS)
async def suspend_tenant(request: Request, principal: MayOperate, tenant: TenantInPath) -> Response:
    """Let nobody in with the tenant's keys, and begin none of its jobs, until it is resumed."""
    services = services_of(request)
    suspended = await services.save_and_see(acting_store(request).suspend_tenant, tenant)
    return json_response(tenant_json(suspended))


@router.post("/v1/tenants/{tenant}/resume", response_model=TenantAnswer, responses=WRITE_ERRORS)
async def resume_tenant(request: Request, principal: MayOperate, tenant: TenantInPath) -> Response:
    """Undo a suspension."""
    services = services_of(request)
    resumed = await services.save_and_see(acting_store(request).resume_tenant, tenant)
    services.wake_jobs()
    return json_response(tenant_json(resumed))


@router.delete("/v1/tenants/{tenant}", response_model=TenantAnswer, responses=WRITE_ERRORS)
async def delete_tenant(request: Request, principal: MayOperate, tenant: TenantInPath) -> Response:
    """Delete a tenant: absent at once. What it had is removed after `purge_after`."""
    services = services_of(request)
    if tenant == services.settings.tenant:
        raise ConflictError(
            "The tenant is the one of this server's own settings, and the server would not start again: "
            "suspend it, or give the server another tenant first.",
            field="tenant",
        )
    deleted = await services.save_and_see(
        acting_store(request).delete_tenant, tenant, grace_seconds=services.settings.tenant_grace_seconds
    )
    return json_response(tenant_json(deleted))
