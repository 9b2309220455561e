"""`/v1/audit`: who changed what. An admin reads its own tenant's log, an operator any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from chorus_server.api.door.auth import MayAdminister
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Limit, OperatedTenant, operated_tenant
from chorus_server.api.http.responses import READ_ERRORS
from chorus_server.api.inference.answers import list_response
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.schemas.audit import AuditPage
from chorus_server.api.services import services_of
from chorus_server.errors import ForbiddenError
from prompts_store.audit.chain import row_facts
from prompts_store.audit.records import AuditFilter, AuditRow
from prompts_store.digests import canonical_json
from prompts_store.pages import MAX_LIMIT

router = APIRouter(route_class=ChorusRoute, tags=["audit"])

_Exact = Annotated[str | None, Query(max_length=256, description="Only rows with exactly this.")]


@router.get(
    "/v1/audit",
    response_model=AuditPage,
    responses={
        **READ_ERRORS,
        200: {
            "description": "Rows, oldest first; with `format=jsonl` all of them, one a line.",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
    },
)
async def list_audit(
    request: Request,
    principal: MayAdminister,
    limit: Limit = 50,
    after: Annotated[int, Query(ge=0, le=2**62, description="The last `sequence` that you have.")] = 0,
    actor: _Exact = None,
    action: _Exact = None,
    subject: _Exact = None,
    since: Annotated[AwareDatetime | None, Query(description="Only rows from this moment on.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only rows before this moment.")] = None,
    format: Annotated[
        Literal["json", "jsonl"],
        Query(description="`jsonl` exports all rows after `after`, whatever `limit`."),
    ] = "json",
    tenant: OperatedTenant = None,
) -> Response:
    """A tenant's audit log; for operators with an empty `tenant`, that of the whole store."""
    library = services_of(request).library
    owner = operated_tenant(principal, tenant)
    if principal.tasks is not None:
        raise ForbiddenError("The log tells of all tasks, and your key may name some only: use another key.")
    which = AuditFilter(actor, action, subject, since, until)
    most = limit if format == "json" else MAX_LIMIT
    rows = await _rows(library, owner, after, most, which)
    if format == "jsonl":
        return StreamingResponse(_lines(library, owner, rows, which), media_type="application/x-ndjson")
    last = rows[-1].sequence if len(rows) == limit else None
    return await list_response("rows", map(row_facts, rows), after={"next_after": last})


async def _rows(
    library: PromptLibrary, tenant: str, after: int, limit: int, which: AuditFilter
) -> list[AuditRow]:
    return await library.read(library.store.audit_rows, tenant, after=after, limit=limit, which=which)


async def _lines(
    library: PromptLibrary, tenant: str, rows: list[AuditRow], which: AuditFilter
) -> AsyncIterator[bytes]:
    """As canonical JSON, of which each row's hash can be computed again."""
    while rows:
        yield b"".join(canonical_json(row_facts(row)) + b"\n" for row in rows)
        rows = await _rows(library, tenant, rows[-1].sequence, MAX_LIMIT, which)
