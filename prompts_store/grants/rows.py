"""Rows of grants: whether one stands, and how they end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, delete, exists, select

from prompts_store.audit import chain
from prompts_store.audit.records import Action
from prompts_store.database import scoped
from prompts_store.database.tables import ensembles, packs, tasks
from prompts_store.database.tenant_tables import grants
from prompts_store.errors import NotFoundError
from prompts_store.grants.records import EVERYBODY, RIGHTS, Grant, GrantKind, Right
from prompts_store.records import Actor
from prompts_store.tenants import feed, standing
from prompts_store.tenants.records import ChangeKind

OWNERS: dict[GrantKind, Table] = {"task": tasks, "ensemble": ensembles, "pack": packs}
"""The tables of what can be granted."""

_TOLD: dict[GrantKind, tuple[ChangeKind, Action, ChangeKind, Action]] = {
    "task": ("task_shared", "task.share", "task_unshared", "task.unshare"),
    "ensemble": ("ensemble_shared", "ensemble.share", "ensemble_unshared", "ensemble.unshare"),
    "pack": ("pack_shared", "pack.share", "pack_unshared", "pack.unshare"),
}


def require(
    connection: Connection, kind: GrantKind, owner: str, name: str, *, tenant: str, right: Right, field: str
) -> None:
    """Refuse a tenant what another one owns and has not granted to it, or not while that one is suspended or
    deleted. Whether there is anything of that name is not looked at.

    Args:
        connection: of the tenant that asks.

    Raises:
        NotFoundError: `unknown_task`, `unknown_ensemble` or `unknown_pack`.
    """
    if owner == tenant:
        return
    if _is_granted(connection, kind, owner, name, tenant, right):
        with scoped(connection, owner):
            if standing.is_active(connection, owner):
                return
    raise unknown(kind, owner, name, field=field)


def unknown(kind: GrantKind, tenant: str, name: str, *, field: str) -> NotFoundError:
    """The error for what is not there, and for one that is not shared."""
    message = f"There is no {kind} {tenant}/{name}."
    if kind == "task":
        return NotFoundError(message, field=field, code="unknown_task")
    if kind == "ensemble":
        return NotFoundError(message, field=field, code="unknown_ensemble")
    return NotFoundError(message, field=field, code="unknown_pack")


def revoke_all(connection: Connection, kind: GrantKind, tenant: str, name: str, *, now: datetime) -> None:
    """End every grant of one task, ensemble or pack, because it is deleted. The caller tells the feed."""
    _revoke(connection, of_one(kind, tenant, name), now)


def revoke_to(connection: Connection, grantee: str, *, limit: int, now: datetime) -> int:
    """End grants to a tenant that is no more, at most `limit`; answers with how many. Nobody is let in with
    its keys, so the feed need not tell. The connection is of every tenant."""
    query = select(grants).where(grants.c.grantee == grantee).order_by(grants.c.tenant, grants.c.name)
    rows = connection.execute(query.limit(limit)).all()
    for row in rows:
        _revoke(connection, _key(row), now)
    return len(rows)


def dangling(connection: Connection) -> list[tuple[GrantKind, str, str]]:
    """Kind, tenant and name of what is granted and is not there, which a store never has."""
    found: list[tuple[GrantKind, str, str]] = []
    for kind, owners in OWNERS.items():
        there = exists().where(
            owners.c.tenant == grants.c.tenant, owners.c.name == grants.c.name, owners.c.deleted_at.is_(None)
        )
        query = select(grants.c.tenant, grants.c.name).where(grants.c.kind == kind, ~there).distinct()
        found += [(kind, row.tenant, row.name) for row in connection.execute(query)]
    return found


def of_one(kind: GrantKind, tenant: str, name: str) -> tuple[ColumnElement[bool], ...]:
    """The condition for the grants of one task, ensemble or pack."""
    return grants.c.tenant == tenant, grants.c.kind == kind, grants.c.name == name


def told(
    connection: Connection, grant: Grant, before: Sequence[Right], after: Sequence[Right], now: datetime
) -> None:
    """Write that a grant became another, into the feed and both logs; of one to everybody, into the owner's
    alone."""
    shared, share, unshared, unshare = _TOLD[grant.kind]
    feed.record(connection, shared if after else unshared, grant.tenant, grant.name, now=now)
    _log(connection, share if after else unshare, grant, before, after, now)


def grant_record(row: Row[Any]) -> Grant:
    """A grant from the columns of `grants`."""
    rights = tuple(right for right in RIGHTS if right in row.rights)
    return Grant(row.kind, row.tenant, row.name, row.grantee, rights, row.created_at, row.created_by)


def _is_granted(
    connection: Connection, kind: GrantKind, owner: str, name: str, tenant: str, right: Right
) -> bool:
    """Whether a grant to the tenant, or to everybody, gives it a right to what another tenant owns."""
    query = select(grants.c.rights).where(
        *of_one(kind, owner, name), grants.c.grantee.in_((tenant, EVERYBODY))
    )
    return any(right in rights for rights in connection.execute(query).scalars())


def _revoke(connection: Connection, which: Iterable[ColumnElement[bool]], now: datetime) -> None:
    conditions = tuple(which)
    rows = connection.execute(select(grants).where(*conditions).order_by(grants.c.grantee)).all()
    connection.execute(delete(grants).where(*conditions))
    for row in rows:
        grant = grant_record(row)
        _log(connection, _TOLD[grant.kind][3], grant, grant.rights, (), now)


def _key(row: Row[Any]) -> tuple[ColumnElement[bool], ...]:
    return *of_one(row.kind, row.tenant, row.name), grants.c.grantee == row.grantee


def _log(
    connection: Connection,
    action: Action,
    grant: Grant,
    before: Sequence[Right],
    after: Sequence[Right],
    now: datetime,
) -> None:
    """The grantee reads whose task it is, and not which key of that tenant changed the grant from where."""
    was, becomes = _facts(grant, before), _facts(grant, after)
    chain.append(connection, action, grant.tenant, grant.name, now=now, before=was, after=becomes)
    if grant.grantee != EVERYBODY:
        subject, owner = f"{grant.tenant}/{grant.name}", Actor(f"tenant {grant.tenant}")
        with scoped(connection, grant.grantee):
            chain.append(
                connection, action, grant.grantee, subject, now=now, before=was, after=becomes, actor=owner
            )


def _facts(grant: Grant, rights: Sequence[Right]) -> Mapping[str, Any] | None:
    return {"grantee": grant.grantee, "rights": list(rights)} if rights else None
