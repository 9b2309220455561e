"""Grants of tasks, ensembles and packs, and `/v1/shared`."""

from __future__ import annotations

from collections.abc import Sequence

from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import Grant, GrantList, Shared, SharedPage
from chorus.wire import Call, Request, Steps, encode_json, model_of, nothing, query_of


def share_task(task: str, grantee: str, rights: Sequence[str] = ("infer",)) -> Call[Grant]:
    """Let another tenant use a task, in place of what it might do before. This takes a key with the scope
    `admin`.

    Args:
        grantee: a tenant's name, whether there is such a tenant or not; `*` for all.
        rights: `infer`, to ask it; `read`, to see and to download it.
    """
    return _share("task", task, grantee, rights)


def unshare_task(task: str, grantee: str) -> Call[None]:
    """Revoke a grant. Every process on the database goes by it within a second; what runs is finished.

    Raises:
        NotFoundError: `unknown_grant`: there is none.
    """
    return _unshare("task", task, grantee)


def task_grants(task: str) -> Steps[list[Grant]]:
    """Which tenants may use a task, and how."""
    return (yield from _grants("task", task))


def share_ensemble(name: str, grantee: str, rights: Sequence[str] = ("infer",)) -> Call[Grant]:
    """Let another tenant use an ensemble with its members, in place of what it might do before. This takes a
    key with the scope `admin`.

    Args:
        grantee: a tenant's name, whether there is such a tenant or not; `*` for all.
        rights: `infer`, to ask it; `read`, to see its members' names.
    """
    return _share("ensemble", name, grantee, rights)


def unshare_ensemble(name: str, grantee: str) -> Call[None]:
    """Revoke a grant. Every process on the database goes by it within a second; what runs is finished.

    Raises:
        NotFoundError: `unknown_grant`: there is none.
    """
    return _unshare("ensemble", name, grantee)


def ensemble_grants(name: str) -> Steps[list[Grant]]:
    """Which tenants may use an ensemble, and how."""
    return (yield from _grants("ensemble", name))


def share_pack(name: str, grantee: str, rights: Sequence[str] = ("infer",)) -> Call[Grant]:
    """Let another tenant use a pack with its versions, in place of what it might do before. This takes a key
    with the scope `admin`.

    Args:
        grantee: a tenant's name, whether there is such a tenant or not; `*` for all.
        rights: `infer`, to ask it; `read`, to see its questions.
    """
    return _share("pack", name, grantee, rights)


def unshare_pack(name: str, grantee: str) -> Call[None]:
    """Revoke a grant. Every process on the database goes by it within a second; what runs is finished.

    Raises:
        NotFoundError: `unknown_grant`: there is none.
    """
    return _unshare("pack", name, grantee)


def pack_grants(name: str) -> Steps[list[Grant]]:
    """Which tenants may use a pack, and how."""
    return (yield from _grants("pack", name))


def shared_page(
    kind: str | None = None, *, limit: int | None = None, cursor: str | None = None
) -> Call[SharedPage]:
    """One page of what other tenants share with yours, by owner and name.

    Args:
        kind: `task`, `ensemble` or `pack`; by default all.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    return Call(get_page("/v1/shared", query_of(kind=kind, limit=limit, cursor=cursor)), model_of(SharedPage))


def shared(kind: str | None = None) -> Steps[list[Shared]]:
    """What other tenants share with yours, by owner and name; fetches page after page.

    Args:
        kind: `task`, `ensemble` or `pack`; by default all.
    """
    return (
        yield from every(
            lambda cursor: shared_page(kind, limit=PAGE, cursor=cursor), lambda page: page.shared
        )
    )


def _share(kind: str, reference: str, grantee: str, rights: Sequence[str]) -> Call[Grant]:
    if isinstance(rights, str):
        raise InvalidArgumentError("rights is a list, not one text.", field="rights")
    path, query = _path(kind, reference, grantee)
    body = encode_json({"rights": list(rights)})
    return Call(Request("PUT", path, query, body=body), model_of(Grant))


def _unshare(kind: str, reference: str, grantee: str) -> Call[None]:
    path, query = _path(kind, reference, grantee)
    return Call(Request("DELETE", path, query), nothing)


def _grants(kind: str, reference: str) -> Steps[list[Grant]]:
    path, query = _path(kind, reference)
    return (yield from Call(get_page(path, query), model_of(GrantList))).grants


def _path(kind: str, reference: str, *grantee: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    named = references.parse_whole(reference, kind)
    last = [references.segment(one, "grantee") for one in grantee]
    path = "/".join((f"/v1/{kind}s", references.segment(named.name, kind), "grants", *last))
    return path, named.query


class TaskGrantMethods:
    """The methods of `client.tasks` for grants."""

    share = Method(share_task)
    unshare = Method(unshare_task)
    grants = Method(task_grants)


class EnsembleGrantMethods:
    """The methods of `client.ensembles` for grants."""

    share = Method(share_ensemble)
    unshare = Method(unshare_ensemble)
    grants = Method(ensemble_grants)


class PackGrantMethods:
    """The methods of `client.packs` for grants."""

    share = Method(share_pack)
    unshare = Method(unshare_pack)
    grants = Method(pack_grants)


class SharedMethods:
    """The methods of the client for what others share."""

    shared = Method(shared)
    shared_page = Method(shared_page)
