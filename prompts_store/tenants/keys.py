"""The store's keys: make, show, list, change, revoke, find, note their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, func, insert, or_, select, update

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tenant_tables import keys, tenants
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.ids import API_KEY, check_cursor_id, is_id, new_id
from prompts_store.names import check_name
from prompts_store.pages import (
    DEFAULT_LIMIT,
    check_limit,
    decode_cursor,
    encode_cursor,
    make_page,
    newest_rows,
)
from prompts_store.records import Page
from prompts_store.tenants import feed
from prompts_store.tenants.key_format import is_public_part, key_digest, make_key, public_part
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from prompts_store.tenants.records import SCOPES, FoundKey, Key, Scope
from prompts_store.tenants.task_patterns import check_patterns
from prompts_store.tenants.tenants import find_tenant
from prompts_store.text import shown

LIVE_KEYS_OF_A_NAME = 2
"""The old one and the new one, while whatever uses them is changed over."""

_CURSOR = "keys"
_TOUCHED_AT_ONCE = 500


class Keys(StoreBase):
    """Keys of tenants. A key itself is in the answer of `create_key` and nowhere else."""

    def create_key(
        self,
        tenant: str,
        name: str,
        *,
        scopes: Sequence[Scope],
        tasks: Sequence[str] | None = None,
        limits: KeyLimits | None = None,
        expires_at: datetime | None = None,
        created_by: str = "",
        first_with: Scope | None = None,
    ) -> tuple[Key, str]:
        """Make a key: its record, and the key to hand over, which is not kept.

        Args:
            name: of what uses it. Two live keys may have one name, so that one takes the other's place.
            tasks: patterns of the tasks and ensembles that it may name; None for any.
            expires_at: from when it is refused; None for never.
            first_with: make it only if no key that lets anybody in, of any tenant, has this scope.

        Raises:
            InvalidError: with the field at fault.
            NotFoundError: `unknown_tenant`.
            ConflictError: `too_many_keys`: two live keys have that name. `key_exists`: there is one that has
                the scope `first_with`.
        """
        check_name(tenant, field="tenant")
        check_name(name, field="name")
        checks.check_text(created_by, field="created_by")
        now = self._clock()
        values = _checked(scopes, tasks, limits or KeyLimits(), expires_at, now)
        with self._database.write(tenant) as connection:
            if first_with is not None:
                with scoped(connection, EVERY_TENANT):
                    _require_none(connection, first_with, now)
            find_tenant(connection, tenant)
            _require_room(connection, tenant, name, now)
            with scoped(connection, EVERY_TENANT):
                secret = _unused_key(connection)
            key_id = new_id(API_KEY)
            connection.execute(
                insert(keys).values(
                    id=key_id,
                    tenant=tenant,
                    public=public_part(secret),
                    digest=key_digest(secret),
                    name=name,
                    created_at=now,
                    created_by=created_by,
                    tasks=values.pop("tasks", None),
                    **values,
                )
            )
            made = _key_record(_find(connection, tenant, key_id))
            feed.record(connection, "key_created", tenant, made.public, now=now)
            facts = {
                "name": name,
                "public": made.public,
                "scopes": list(made.scopes),
                "tasks": made.tasks,
                "limits": made.limits.document(),
                "expires_at": made.expires_at,
            }
            chain.append(connection, "key.create", tenant, key_id, now=now, after=facts)
        return made, secret

    def get_key(self, tenant: str, key_id: str) -> Key:
        """A key, also one that is over. NotFoundError: `unknown_tenant`, `unknown_key`."""
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            return _key_record(_find(connection, tenant, key_id))

    def list_keys(self, tenant: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[Key]:
        """A page of a tenant's keys, newest first, also those that are over.

        Raises:
            NotFoundError: `unknown_tenant`.
            InvalidError: a bad limit or cursor.
        """
        check_name(tenant, field="tenant")
        limit = check_limit(limit)
        before = decode_cursor(_CURSOR, cursor, check_cursor_id)
        query = select(keys).where(keys.c.tenant == tenant)
        with self._database.read(tenant) as connection:
            find_tenant(connection, tenant)
            rows = newest_rows(connection, query, keys, tenant, before, limit)
        return make_page(rows, limit, _key_record, lambda row: encode_cursor(_CURSOR, row.id))

    def update_key(
        self,
        tenant: str,
        key_id: str,
        *,
        scopes: Sequence[Scope] | None = None,
        tasks: Sequence[str] | None = None,
        limits: KeyLimits | None = None,
        expires_at: datetime | None = None,
    ) -> Key:
        """Change what is given, each as a whole; None leaves it. Where it is so already, nothing is written.

        Args:
            tasks: `["*"]` gives it every task again.

        Raises:
            InvalidError: with the field at fault.
            NotFoundError: `unknown_tenant`, `unknown_key`.
            ConflictError: `key_over`: it was revoked, or has expired.
        """
        check_name(tenant, field="tenant")
        now = self._clock()
        values = _checked(scopes, tasks, limits, expires_at, now)
        with self._database.write(tenant) as connection:
            row = _find(connection, tenant, key_id)
            if not _key_record(row).is_live(now):
                raise ConflictError(
                    "The key was revoked or has expired, and stays so; make another.",
                    field="key",
                    code="key_over",
                )
            before, after = chain.difference(row, values)
            if after:
                connection.execute(update(keys).where(keys.c.number == row.number).values(**values))
                feed.record(connection, "key_updated", tenant, row.public, now=now)
                chain.append(connection, "key.update", tenant, key_id, now=now, before=before, after=after)
            return _key_record(_find(connection, tenant, key_id))

    def revoke_key(self, tenant: str, key_id: str) -> Key:
        """End a key for good. Where it was revoked before, nothing is written.

        Raises:
            NotFoundError: `unknown_tenant`, `unknown_key`.
        """
        check_name(tenant, field="tenant")
        with self._database.write(tenant) as connection:
            now = self._clock()
            row = _find(connection, tenant, key_id)
            if row.revoked_at is None:
                connection.execute(update(keys).where(keys.c.number == row.number).values(revoked_at=now))
                feed.record(connection, "key_revoked", tenant, row.public, now=now)
                facts = {"name": row.name, "public": row.public}
                chain.append(connection, "key.revoke", tenant, key_id, now=now, before=facts)
            return _key_record(_find(connection, tenant, key_id))

    def find_key(self, public: str) -> FoundKey | None:
        """The key with this public part, of any tenant and in any state, in one query by an index.

        Its digest still has to be compared, and its state and its tenant's looked at.
        """
        if not is_public_part(public):
            return None
        with self._database.read(EVERY_TENANT) as connection:
            row = connection.execute(_FOUND.where(keys.c.public == public)).one_or_none()
        if row is None:
            return None
        return FoundKey(
            _key_record(row), row.digest, row.status, row.weight, TenantLimits.read(row.tenant_limits)
        )

    def holds_keys(self) -> bool:
        """Whether there is a key that nobody revoked, of a tenant that is not deleted. An expired one counts
        too, so that no passing of time lets anybody in."""
        found = select(keys.c.number).join(tenants, tenants.c.name == keys.c.tenant)
        found = found.where(keys.c.revoked_at.is_(None), tenants.c.status != "deleted").limit(1)
        with self._database.read(EVERY_TENANT) as connection:
            return connection.execute(found).first() is not None

    def touch_keys(self, used: Mapping[str, datetime]) -> None:
        """Note when keys were used last, to the minute, by id. An earlier moment than is known changes
        nothing, and neither does an id that is not there.

        Raises:
            StoreError: the database failed; noting the same again does no harm.
        """
        minutes = [{"key_id": key, "minute": _minute(moment)} for key, moment in sorted(used.items())]
        touch = (
            update(keys)
            .where(
                keys.c.id == bindparam("key_id"),
                or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < bindparam("minute")),
            )
            .values(last_used_at=bindparam("minute"))
        )
        for start in range(0, len(minutes), _TOUCHED_AT_ONCE):
            with self._database.write(EVERY_TENANT) as connection:
                connection.execute(touch, minutes[start : start + _TOUCHED_AT_ONCE])


_FOUND = select(keys, tenants.c.status, tenants.c.weight, tenants.c.limits.label("tenant_limits")).join(
    tenants, tenants.c.name == keys.c.tenant
)


def check_scopes(scopes: object, *, field: str = "scopes") -> tuple[Scope, ...]:
    """The scopes, each once, in the order of `SCOPES`.

    Raises:
        InvalidError: `invalid_scope`, with the field or the scope's path.
    """
    if isinstance(scopes, str | bytes) or not isinstance(scopes, Sequence) or not scopes:
        raise InvalidError(
            f"{field} is a list of at least one of {', '.join(SCOPES)}.", field=field, code="invalid_scope"
        )
    for i, scope in enumerate(scopes):
        if scope not in SCOPES:
            raise InvalidError(
                f"{shown(scope)} is not a scope; it is one of {', '.join(SCOPES)}.",
                field=f"{field}.{i}",
                code="invalid_scope",
            )
    return tuple(known for known in SCOPES if known in scopes)


def _checked(
    scopes: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limits: KeyLimits | None,
    expires_at: datetime | None,
    now: datetime,
) -> dict[str, Any]:
    """The columns of what is given. InvalidError, with the field at fault."""
    values: dict[str, Any] = {}
    if scopes is not None:
        values["scopes"] = list(check_scopes(scopes))
    if tasks is not None:
        values["tasks"] = list(check_patterns(tasks) or ())
    if limits is not None:
        values["limits"] = limits.document()
    if expires_at is not None:
        if not isinstance(expires_at, datetime) or expires_at.utcoffset() is None or expires_at <= now:
            raise InvalidError(
                f"{shown(expires_at)} is no moment to expire at; give one to come, with its time zone.",
                field="expires_at",
            )
        values["expires_at"] = expires_at
    return values


def _is_live(now: datetime) -> ColumnElement[bool]:
    return and_(keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now))


def _require_none(connection: Connection, scope: Scope, now: datetime) -> None:
    query = select(keys.c.id, keys.c.tenant, keys.c.scopes).join(tenants, tenants.c.name == keys.c.tenant)
    query = query.where(_is_live(now), tenants.c.status == "active")
    for row in connection.execute(query):
        if scope in row.scopes:
            raise ConflictError(
                f"There is a live key with the scope {scope} already: {row.id} of the tenant '{row.tenant}'.",
                code="key_exists",
            )


def _require_room(connection: Connection, tenant: str, name: str, now: datetime) -> None:
    query = select(func.count()).where(keys.c.tenant == tenant, keys.c.name == name, _is_live(now))
    if connection.execute(query).scalar_one() >= LIVE_KEYS_OF_A_NAME:
        raise ConflictError(
            f"Two live keys have the name '{name}', the most that may; revoke one of them first.",
            field="name",
            code="too_many_keys",
        )


def _unused_key(connection: Connection) -> str:
    """A fresh key whose public part nobody has."""
    while True:
        secret = make_key()
        query = select(keys.c.number).where(keys.c.public == public_part(secret))
        if connection.execute(query).one_or_none() is None:
            return secret


def _find(connection: Connection, tenant: str, key_id: str) -> Row[Any]:
    find_tenant(connection, tenant)
    query = select(keys).where(keys.c.id == key_id, keys.c.tenant == tenant)
    row = connection.execute(query).one_or_none() if is_id(key_id) else None
    if row is None:
        raise NotFoundError(f"There is no key {shown(key_id)}.", field="key", code="unknown_key")
    return row


def _key_record(row: Row[Any]) -> Key:
    """A key from the columns of `keys`."""
    return Key(
        id=row.id,
        tenant=row.tenant,
        public=row.public,
        name=row.name,
        scopes=tuple(row.scopes),
        tasks=None if row.tasks is None else tuple(row.tasks),
        limits=KeyLimits.read(row.limits),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
