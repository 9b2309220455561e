"""The store's grants: give, change, revoke, list."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import groupby
from typing import get_args

from sqlalchemy import Connection, delete, func, insert, select, tuple_, update

from prompts_store import checks
from prompts_store.base import StoreBase, check_owner
from prompts_store.database.tenant_tables import grants
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.grants import rows
from prompts_store.grants.records import EVERYBODY, GRANT_KINDS, RIGHTS, Grant, GrantKind, Right, Shared
from prompts_store.names import check_name
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import Page
from prompts_store.tenants import standing
from prompts_store.text import shown

MAX_GRANTS = 100
"""Of one task, ensemble or pack."""

_CURSOR = "shared"


class Grants(StoreBase):
    """What tenants let others use. A grant ends with what it is of."""

    def share(
        self,
        kind: GrantKind,
        tenant: str,
        name: str,
        grantee: str,
        rights: Collection[Right],
        *,
        created_by: str = "",
    ) -> Grant:
        """Grant rights to a task, an ensemble or a pack, in place of those that the grantee had. Where it is
        so already, nothing is written.

        Args:
            grantee: a tenant's name, whether there is such a tenant or not; or `EVERYBODY`.

        Raises:
            InvalidError: with the field at fault; `invalid_right`.
            NotFoundError: `unknown_task`, `unknown_ensemble`, `unknown_pack`; `unknown_tenant`: the owner was
                deleted.
            ConflictError: `too_many_grants`.
        """
        _check(kind, tenant, name, grantee, created_by)
        given = _check_rights(rights)
        with self._database.write(tenant) as connection:
            now = self._clock()
            standing.require_not_deleted(connection, tenant)
            _require_there(connection, kind, tenant, name)
            which = (*rows.of_one(kind, tenant, name), grants.c.grantee == grantee)
            found = connection.execute(select(grants).where(*which)).one_or_none()
            if found is not None and rows.grant_record(found).rights == given:
                return rows.grant_record(found)
            values = {"rights": list(given), "created_at": now, "created_by": created_by}
            if found is not None:
                connection.execute(update(grants).where(*which).values(**values))
            else:
                _require_room(connection, kind, tenant, name)
                key = {"tenant": tenant, "kind": kind, "name": name, "grantee": grantee}
                connection.execute(insert(grants).values(**key, **values))
            grant = Grant(kind, tenant, name, grantee, given, now, created_by)
            before = () if found is None else rows.grant_record(found).rights
            rows.told(connection, grant, before, given, now)
            return grant

    def unshare(self, kind: GrantKind, tenant: str, name: str, grantee: str) -> None:
        """Revoke a grant. What runs under it is finished.

        Raises:
            InvalidError: with the field at fault.
            NotFoundError: `unknown_task`, `unknown_ensemble`, `unknown_pack`, `unknown_grant`.
        """
        _check(kind, tenant, name, grantee)
        with self._database.write(tenant) as connection:
            _require_there(connection, kind, tenant, name)
            which = (*rows.of_one(kind, tenant, name), grants.c.grantee == grantee)
            found = connection.execute(select(grants).where(*which)).one_or_none()
            if found is None:
                raise NotFoundError(
                    f"The {kind} {tenant}/{name} has no grant to {grantee}.",
                    field="grantee",
                    code="unknown_grant",
                )
            connection.execute(delete(grants).where(*which))
            grant = rows.grant_record(found)
            rows.told(connection, grant, grant.rights, (), self._clock())

    def list_grants(self, kind: GrantKind, tenant: str, name: str) -> list[Grant]:
        """The grants of a task, an ensemble or a pack, by grantee. NotFoundError: as `share`."""
        _check(kind, tenant, name, EVERYBODY)
        with self._database.read(tenant) as connection:
            _require_there(connection, kind, tenant, name)
            query = select(grants).where(*rows.of_one(kind, tenant, name)).order_by(grants.c.grantee)
            return [rows.grant_record(row) for row in connection.execute(query)]

    def list_shared(
        self,
        tenant: str,
        *,
        kind: GrantKind | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Shared]:
        """A page of what other tenants have granted to a tenant or to everybody, by owner and name. What is
        of suspended and deleted tenants is left out of the page.

        Raises:
            InvalidError: a bad kind, limit or cursor.
        """
        check_name(tenant, field="tenant")
        limit = check_limit(limit)
        after = decode_cursor(_CURSOR, cursor, _check_key)
        key = (grants.c.tenant, grants.c.name, grants.c.kind)
        query = select(grants).where(grants.c.grantee.in_((tenant, EVERYBODY)), grants.c.tenant != tenant)
        if kind is not None:
            query = query.where(grants.c.kind == _check_kind(kind))
        if after is not None:
            query = query.where(tuple_(*key) > tuple_(*after))
        with self._database.read(tenant) as connection:
            # One to the tenant and one to everybody may be of the same thing.
            found = connection.execute(query.order_by(*key).limit(2 * (limit + 1))).all()
            stopped = standing.stopped_of(connection, {row.tenant for row in found})
        items = []
        for (owner, name, its_kind), same in groupby(found, lambda row: (row.tenant, row.name, row.kind)):
            given = {right for row in same for right in row.rights}
            items.append(Shared(its_kind, owner, name, tuple(right for right in RIGHTS if right in given)))
        page = make_page(items[: limit + 1], limit, lambda item: item, _cursor_of)
        return replace(page, items=tuple(item for item in page.items if item.tenant not in stopped))

    def require_grant(
        self, kind: GrantKind, owner: str, name: str, *, tenant: str, right: Right, field: str | None = None
    ) -> None:
        """Refuse a tenant what another one owns and has not granted to it. Its own is never refused.

        Raises:
            InvalidError: a bad name.
            NotFoundError: `unknown_task`, `unknown_ensemble`, `unknown_pack`: as for what is not there.
        """
        _check(kind, owner, name, EVERYBODY)
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            rows.require(connection, kind, owner, name, tenant=tenant, right=right, field=field or kind)


def _check(kind: object, tenant: str, name: str, grantee: str, by: str = "") -> None:
    check_owner(tenant, name, field=_check_kind(kind))
    checks.check_text(by, field="created_by")
    if grantee != EVERYBODY:
        check_name(grantee, field="grantee")
    if grantee == tenant:
        raise InvalidError(
            f"The tenant {tenant} owns this and may do everything with it: name another tenant, or "
            f"'{EVERYBODY}' for all.",
            field="grantee",
        )


def _check_kind(kind: object) -> GrantKind:
    for known in GRANT_KINDS:
        if kind == known:
            return known
    raise InvalidError(f"{shown(kind)} is none of 'task', 'ensemble' and 'pack'.", field="kind")


def _check_rights(rights: object) -> tuple[Right, ...]:
    if isinstance(rights, str) or not isinstance(rights, Collection) or not rights:
        raise InvalidError(
            f"rights is a list of one or more of {', '.join(RIGHTS)}; to take all of them away, revoke the "
            f"grant.",
            field="rights",
            code="invalid_right",
        )
    for i, right in enumerate(rights):
        if right not in get_args(Right):
            raise InvalidError(
                f"{shown(right)} is not a right: use {' or '.join(RIGHTS)}.",
                field=f"rights.{i}",
                code="invalid_right",
            )
    return tuple(right for right in RIGHTS if right in rights)


def _require_there(connection: Connection, kind: GrantKind, tenant: str, name: str) -> None:
    owners = rows.OWNERS[kind]
    query = select(owners.c.id).where(
        owners.c.tenant == tenant, owners.c.name == name, owners.c.deleted_at.is_(None)
    )
    if connection.execute(query).one_or_none() is None:
        raise rows.unknown(kind, tenant, name, field=kind)


def _require_room(connection: Connection, kind: GrantKind, tenant: str, name: str) -> None:
    query = select(func.count()).select_from(grants).where(*rows.of_one(kind, tenant, name))
    if connection.execute(query).scalar_one() >= MAX_GRANTS:
        raise ConflictError(
            f"The {kind} has {MAX_GRANTS} grants, and may have no more: revoke one, or grant it to all with "
            f"'{EVERYBODY}'.",
            field="grantee",
            code="too_many_grants",
        )


def _cursor_of(item: Shared) -> str:
    return encode_cursor(_CURSOR, f"{item.tenant}/{item.name}/{item.kind}")


def _check_key(key: object) -> tuple[str, str, str]:
    tenant, name, kind = str(key).split("/")
    return check_name(tenant, field="cursor"), check_name(name, field="cursor"), _check_kind(kind)
