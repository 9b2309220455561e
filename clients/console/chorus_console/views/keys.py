"""A tenant's keys: made, limited, rotated, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus.types import Key
from chorus_console import limits_form
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import Same, same
from chorus_console.views.tenants import tenant_of

_PAGE = 25
_LONGEST_DAYS = 3650
SCOPES = ("infer", "prompts:read", "prompts:write", "tune", "metrics:read", "admin", "operator")


async def table(visit: Visit) -> Response:
    """A tenant's keys, newest first, and what is left of its limits."""
    tenant, cursor = tenant_of(visit), visit.request.query_params.get("cursor") or None
    me = await visit.me()
    page = await visit.client.keys.page(tenant=tenant, limit=_PAGE, cursor=cursor)
    example = next((key for key in page.keys if key.status == "live"), None)
    return await visit.show(
        "keys.html", keys=page.keys, next=page.next_cursor, cursor=cursor, tenant=tenant,
        left=[] if tenant else me.limits.left, scopes=[each for each in SCOPES if each in me.scopes],
        grid=limits_form.grid(False), columns=limits_form.COLUMNS,
        same=[
            same("GET", "/v1/keys", f"keys = client.keys.list({_for(tenant)})",
                 "chorus", "keys", "list", *_of(tenant), tenant=tenant),
            _making("website", ["infer"], None, {}, tenant).doing("Make the key"),
            *_ending(example, tenant),
        ],
    )  # fmt: skip


def _for(tenant: str | None, before: str = "") -> str:
    return f"{before}tenant={tenant!r}" if tenant else ""


def _of(tenant: str | None) -> list[str]:
    return ["--tenant", tenant] if tenant else []


def _making(
    name: str, scopes: Sequence[str], tasks: Sequence[str] | None, limits: dict[str, Any], tenant: str | None
) -> Same:
    body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    body |= {"tasks": list(tasks)} if tasks else {}
    body |= {"limits": limits} if limits else {}
    more = "".join(f", {field}={value!r}" for field, value in body.items() if field not in ("name", "scopes"))
    words = [word for scope in scopes for word in ("--scope", scope)]
    words += [word for pattern in tasks or () for word in ("--task", pattern)]
    words += [
        word
        for path, value in limits_form.values_of(limits).items()
        for word in ("--limit", f"{path}={value}")
    ]
    return same(
        "POST", "/v1/keys",
        f"made = client.keys.create({name!r}, scopes={list(scopes)!r}{more}{_for(tenant, ', ')})",
        "chorus", "keys", "create", name, *words, *_of(tenant), body=body, tenant=tenant,
    )  # fmt: skip


def _ending(key: Key | None, tenant: str | None) -> list[Same]:
    """How a key is rotated, which is to make another like it, and revoked."""
    if key is None:
        return []
    return [
        _making(key.name, key.scopes, key.tasks, key.limits, tenant).doing("Rotate"),
        same("DELETE", f"/v1/keys/{key.id}", f"client.keys.revoke({key.id!r}{_for(tenant, ', ')})",
             "chorus", "keys", "revoke", key.id, *_of(tenant), tenant=tenant).doing("Revoke"),
    ]  # fmt: skip


async def make(visit: Visit) -> Response:
    """Make a key, and show it this once."""
    form = await visit.form()
    patterns = [each.strip() for each in (await visit.text("tasks")).split(",")]
    key = await visit.client.keys.create(
        await visit.text("name"),
        scopes=[str(each) for each in form.getlist("scope")],
        tasks=[each for each in patterns if each] or None,
        limits=limits_form.document(limits_form.given(_texts(form.multi_items()))) or None,
        expires_at=_after(await visit.text("days")),
        tenant=tenant_of(visit),
    )
    return await visit.show("key_made.html", made=key)


def _texts(items: Sequence[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in items if isinstance(value, str)]


def _after(days: str) -> datetime | None:
    if not days:
        return None
    return datetime.now(UTC) + timedelta(days=limits_form.whole_number("Days", days, _LONGEST_DAYS, 1))


async def one(visit: Visit) -> Response:
    """A key, and what would change if it got other limits."""
    tenant, query = tenant_of(visit), visit.request.query_params
    key = await visit.client.keys.get(visit.request.path_params["key"], tenant=tenant)
    now = limits_form.values_of(key.limits)
    wanted = limits_form.given(query.multi_items()) if query.get("show") else now
    limits = limits_form.document(wanted)
    changed = [(path, now.get(path), wanted.get(path)) for path in dict.fromkeys((*now, *wanted))]
    words = [word for path, value in wanted.items() for word in ("--limit", f"{path}={value}")]
    return await visit.show(
        "key.html", key=key, tenant=tenant, values=wanted, showing=bool(query.get("show")),
        grid=limits_form.grid(False), columns=limits_form.COLUMNS,
        changed=[each for each in changed if each[1] != each[2]],
        same=[
            same("GET", f"/v1/keys/{key.id}", f"key = client.keys.get({key.id!r}{_for(tenant, ', ')})",
                 "chorus", "keys", "show", key.id, *_of(tenant), tenant=tenant),
            same("PATCH", f"/v1/keys/{key.id}",
                 f"client.keys.update({key.id!r}, limits={limits!r}{_for(tenant, ', ')})",
                 "chorus", "keys", "update", key.id, *(words or ["--no-limits"]), *_of(tenant),
                 body={"limits": limits}, tenant=tenant).doing("Change the limits"),
            *_ending(key, tenant),
        ],
    )  # fmt: skip


async def change(visit: Visit) -> Response:
    """Rotate a key: another with the same rights, beside it; limit it; or revoke it."""
    tenant, name, what = tenant_of(visit), visit.request.path_params["key"], await visit.text("what")
    if what == "revoke":
        await visit.client.keys.revoke(name, tenant=tenant)
        return visit.go(local("tenants", "keys", tenant=tenant))
    if what == "limit":
        limits = limits_form.document(limits_form.given(_texts((await visit.form()).multi_items())))
        await visit.client.keys.update(name, limits=limits, tenant=tenant)
        return visit.go(local("tenants", "keys", name, tenant=tenant))
    if what != "rotate":
        raise HTTPException(400, "A key is rotated, limited or revoked.")
    old = await visit.client.keys.get(name, tenant=tenant)
    key = await visit.client.keys.create(
        old.name,
        scopes=old.scopes,
        tasks=old.tasks,
        limits=old.limits,
        expires_at=old.expires_at,
        tenant=tenant,
    )
    return await visit.show("key_made.html", made=key)
