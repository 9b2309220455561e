"""What tenants share: grants of a task, an ensemble or a pack, and what others share with one's own."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus.types import Grant
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import Same, same

_PAGE = 25
KINDS = ("task", "ensemble", "pack")
RIGHTS = (("infer", "ask it"), ("read", "see and download it"))


async def show(visit: Visit) -> Response:
    """What others share, and with whom one thing is shared."""
    query = visit.request.query_params
    kind, name = _kind(query.get("kind", "task")), query.get("name", "").strip()
    cursor = query.get("cursor") or None
    page = await visit.client.shared_page(limit=_PAGE, cursor=cursor)
    grants = await _given(visit, kind, name) if name else []
    return await visit.show(
        "grants.html", shared=page.shared, next=page.next_cursor, cursor=cursor, kind=kind, kinds=KINDS,
        name=name, grants=grants, rights=RIGHTS, tenant=None,
        same=[
            same("GET", "/v1/shared", "shared = client.shared()", "chorus", "shared"),
            *sharing(kind, name or "sst2"),
        ],
    )  # fmt: skip


def _kind(text: str) -> str:
    if text not in KINDS:
        raise HTTPException(400, "A task, an ensemble or a pack is shared.")
    return text


async def _given(visit: Visit, kind: str, name: str) -> list[Grant]:
    client = visit.client
    if kind == "task":
        return await client.tasks.grants(name)
    return await (client.ensembles.grants(name) if kind == "ensemble" else client.packs.grants(name))


def sharing(kind: str, name: str, grantee: str = "elm") -> list[Same]:
    """How something is shared, and how that ends."""
    owner, _, bare = name.rpartition("/")
    path = f"/v1/{kind}s/{bare}/grants/{grantee}"
    words = ("chorus", kind if kind == "ensemble" else f"{kind}s")
    return [
        same("PUT", path, f"client.{kind}s.share({name!r}, {grantee!r}, ['infer'])",
             *words, "share", name, "--with", grantee,
             body={"rights": ["infer"]}, tenant=owner).doing("Share"),
        same("DELETE", path, f"client.{kind}s.unshare({name!r}, {grantee!r})",
             *words, "unshare", name, "--with", grantee, tenant=owner).doing("Stop"),
    ]  # fmt: skip


async def change(visit: Visit) -> Response:
    """Let another tenant use something, or end that."""
    kind, name = _kind(await visit.text("kind")), await visit.text("name")
    await share(visit, kind, name, await visit.text("grantee"))
    return visit.go(local("tenants", "grants", kind=kind, name=name))


async def share(visit: Visit, kind: str, name: str, grantee: str) -> None:
    """Do what a form with `right`s, or with `what` to end them, asks for."""
    client = visit.client
    rights = [str(each) for each in (await visit.form()).getlist("right")]
    ends = await visit.text("what") == "end"
    if kind == "task":
        await (client.tasks.unshare(name, grantee) if ends else client.tasks.share(name, grantee, rights))
    elif kind == "ensemble":
        await (
            client.ensembles.unshare(name, grantee) if ends else client.ensembles.share(name, grantee, rights)
        )
    else:
        await (client.packs.unshare(name, grantee) if ends else client.packs.share(name, grantee, rights))
