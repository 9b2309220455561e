"""`GET /v1/me`: who asks, for any key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import AnyCaller
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.responses import READ_ERRORS
from chorus_server.api.inference.answers import json_response
from chorus_server.api.schemas.common import MAX_LABELS, MAX_ROWS, MAX_UNFINISHED_JOBS
from chorus_server.api.schemas.tenants import MeAnswer
from chorus_server.api.services import services_of
from chorus_server.tenancy.principal import Scope
from chorus_server.tenancy.quota import Told
from prompts_store.base import utc_now
from prompts_store.months import month_after
from prompts_store.tenants.limits import StoredAmounts, TenantLimits
from prompts_store.tenants.records import StoredUse
from prompts_store.tenants.stored import steps_budget

router = APIRouter(route_class=ChorusRoute, tags=["keys"])


@router.get("/v1/me", response_model=MeAnswer, responses=READ_ERRORS)
async def me(request: Request, principal: AnyCaller) -> Response:
    """The caller's tenant, key, scopes and limits, and what is left of these."""
    services = services_of(request)
    library, settings = services.library, services.settings
    tenant = await library.read(library.store.get_tenant, principal.tenant)
    use = await library.read(library.store.stored_use, principal.tenant)
    key = None
    if principal.key is not None:
        key = await library.read(library.store.get_key, principal.tenant, principal.key)
    most_jobs = tenant.limits.stored and tenant.limits.stored.unfinished_jobs
    await services.budgets.refresh(principal)
    own_key = {
        "id": principal.key,
        "public": None if key is None else key.public,
        "name": principal.name,
        "tasks": None if principal.tasks is None else list(principal.tasks),
        "expires_at": None if key is None else key.expires_at,
    }
    return json_response(
        {
            "tenant": {
                "tenant": tenant.name,
                "display_name": tenant.display_name,
                "weight": tenant.weight,
                "status": tenant.status,
            },
            "key": None if principal.keyless else own_key,
            "scopes": [scope for scope in Scope if scope in principal.scopes],
            "limits": {
                "max_body_bytes": settings.max_body_bytes,
                "max_upload_bytes": settings.max_upload_bytes,
                "max_batch_rows": MAX_ROWS,
                "max_labels": MAX_LABELS,
                "max_deadline_seconds": settings.max_deadline_seconds,
                "max_unfinished_jobs": MAX_UNFINISHED_JOBS if most_jobs is None else most_jobs,
                "tenant": tenant.limits.document(),
                "key": {} if key is None else key.limits.document(),
                "left": [
                    *(_left(each) for each in services.budgets.limits_of(principal)),
                    *_kept(tenant.limits, use),
                ],
            },
        }
    )


def _left(limit: Told) -> dict[str, Any]:
    line = limit.line
    return {
        "of": limit.owner,
        "limit": line.name,
        "most": line.most,
        "soft": line.soft,
        "used": line.used(limit.now),
        "left": None if line.most is None else limit.remaining,
        "full_in_seconds": round(limit.full_in, 3),
    }


def _kept(limits: TenantLimits, use: StoredUse) -> Iterator[dict[str, Any]]:
    """What is left of the limits on what is kept, and of the month's training steps."""
    stored, steps = limits.stored or StoredAmounts(), steps_budget(limits)
    for name in StoredAmounts.model_fields:
        most = getattr(stored, name)
        if most is not None:
            yield _rest(f"stored.{name}", most, None, getattr(use, name), None)
    if steps.hard is not None or steps.soft is not None:
        now = utc_now()
        full_in = (month_after(now) - now).total_seconds()
        yield _rest("per_month.training_steps", steps.hard, steps.soft, use.training_steps, full_in)


def _rest(limit: str, most: int | None, soft: int | None, used: int, full_in: float | None) -> dict[str, Any]:
    return {
        "of": "tenant",
        "limit": limit,
        "most": most,
        "soft": soft,
        "used": used,
        "left": None if most is None else max(0, most - used),
        "full_in_seconds": full_in,
    }
