"""`/v1/keys`: the keys of the caller's tenant and, for operators, of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import Key, KeyPage, NewKey
from chorus.wire import Call, Request, Steps, encode_json, model_of, query_of, without_none

PATH = "/v1/keys"
SECRET_PREFIX = "ck_"


def _path(key: str | Key) -> str:
    """The path of a key, given its id or its record.

    Raises:
        InvalidArgumentError: it is no id. If it is the secret itself, the message does not show it.
    """
    key_id = key.id if isinstance(key, Key) else key
    if isinstance(key_id, str) and key_id.startswith(SECRET_PREFIX):
        raise InvalidArgumentError(
            "This is a key itself, and nothing was sent, since URLs are logged. Give the key's id, key-..., "
            "which the list of keys shows.",
            field="key",
        )
    return f"{PATH}/{references.segment(key_id, 'key')}"


def create(
    name: str,
    *,
    scopes: Sequence[str],
    tasks: Sequence[str] | None = None,
    limits: Mapping[str, Any] | None = None,
    expires_at: datetime | None = None,
    tenant: str | None = None,
) -> Call[NewKey]:
    """Make a key. Its `key` is in this answer and nowhere else, so keep it now.

    Args:
        name: of what uses it. Two live keys may have the same name, so that one takes the other's place.
        scopes: what it may do: `infer`, `prompts:read`, `prompts:write`, `tune`, `metrics:read`, `admin`,
            `operator`. None that the caller's own key lacks.
        tasks: patterns of the tasks and ensembles that it may name, in which `*` stands for any characters;
            by default any.
        limits: what it may use of what its tenant may, such as `{"per_minute": {"requests": 60}}`.
        expires_at: from when on it is refused, with a time zone; by default never.
        tenant: whose key it is, for operators; by default the caller's own tenant.

    Raises:
        ConflictError: `too_many_keys`: two live keys have this name.
        ForbiddenError: the caller's own key lacks a scope or a pattern.
    """
    for field, values in (("scopes", scopes), ("tasks", tasks)):
        if isinstance(values, str):
            raise InvalidArgumentError(f"{field} is a list, not one text.", field=field)
    if expires_at is not None and (not isinstance(expires_at, datetime) or expires_at.utcoffset() is None):
        raise InvalidArgumentError(
            f"expires_at is a datetime with a time zone, not {expires_at!r}.", field="expires_at"
        )
    body = {
        "name": name,
        "scopes": list(scopes),
        "tasks": None if tasks is None else list(tasks),
        "limits": limits,
        "expires_at": None if expires_at is None else expires_at.isoformat(),
    }
    request = Request("POST", PATH, query_of(tenant=tenant), body=encode_json(without_none(body)))
    return Call(request, model_of(NewKey))


def list_page(
    *, tenant: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[KeyPage]:
    """One page of a tenant's keys, newest first, also those that expired or were revoked.

    Args:
        tenant: whose, for operators; by default the caller's own tenant.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    return Call(get_page(PATH, query_of(tenant=tenant, limit=limit, cursor=cursor)), model_of(KeyPage))


def list_all(*, tenant: str | None = None) -> Steps[list[Key]]:
    """Every key of a tenant, newest first, also those that expired or were revoked; fetches page after page.

    Args:
        tenant: whose, for operators; by default the caller's own tenant.
    """
    return (
        yield from every(
            lambda cursor: list_page(tenant=tenant, limit=PAGE, cursor=cursor), lambda page: page.keys
        )
    )


def _query(key: str | Key, tenant: str | None) -> tuple[tuple[str, str], ...]:
    return query_of(tenant=key.tenant if tenant is None and isinstance(key, Key) else tenant)


def get(key: str | Key, *, tenant: str | None = None) -> Call[Key]:
    """Describe one key.

    Args:
        key: its id, `key-...`, or its record; never the key itself.
        tenant: whose, for operators; by default the record's tenant, else the caller's own.
    """
    return Call(get_page(_path(key), _query(key, tenant)), model_of(Key))


def update(key: str | Key, *, limits: Mapping[str, Any], tenant: str | None = None) -> Call[Key]:
    """Change what a key may use. Every process on the database follows within a second.

    Args:
        key: its id, `key-...`, or its record; never the key itself.
        limits: in place of all that it had; `{}` removes them.
        tenant: whose, for operators; by default the record's tenant, else the caller's own.

    Raises:
        ConflictError: `key_over`: it was revoked, or has expired.
    """
    body = encode_json({"limits": limits})
    return Call(Request("PATCH", _path(key), _query(key, tenant), body=body), model_of(Key))


def revoke(key: str | Key, *, tenant: str | None = None) -> Call[Key]:
    """Revoke a key, for good. Every process on the database refuses it within a second.

    Args:
        key: its id, `key-...`, or its record; never the key itself.
        tenant: whose, for operators; by default the record's tenant, else the caller's own.
    """
    return Call(Request("DELETE", _path(key), _query(key, tenant)), model_of(Key))


class KeyMethods:
    """The methods of `client.keys`."""

    create = Method(create)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    update = Method(update)
    revoke = Method(revoke)
