"""Requests to create something, which come again when their answer was lost: each makes one thing.

What a request has made is remembered in the transaction that makes it, under the publish lock: so whatever
dies, and however many processes get the same request at once, there is one thing or none. Of what was refused
nothing is remembered. With a key it is the sender who says that two requests are the same one. Without a key
they are if one sender asks for the same thing twice in a minute, where the room says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select

from prompts_store.base import StoreBase
from prompts_store.database.database import creation_of
from prompts_store.database.tenant_tables import creations
from prompts_store.errors import InvalidError
from prompts_store.names import check_name
from prompts_store.records import Creation
from prompts_store.tenants.expiring import drop_expired

KEYED = timedelta(hours=24)
"""How long a request with a key is remembered."""

UNKEYED = timedelta(minutes=1)
"""How long one without a key is remembered."""


class MadeBefore(Exception):  # noqa: N818 - nothing is wrong
    """The request came before, and made this: nothing was made now.

    Args:
        made: an id, or `task@3`.
    """

    def __init__(self, made: str) -> None:
        super().__init__(made)
        self.made = made


class Creations(StoreBase):
    """What was made of requests that may come again."""

    def made_before(self, tenant: str, creation: Creation, *, whole: bool = True) -> str | None:
        """What a request with a key has made, if it came before. To answer early; `creating` is what counts.

        Args:
            whole: whether all is known that it says; if not, that is not compared.

        Raises:
            InvalidError: `idempotency_key_reused`: its key came with a request that said something else.
        """
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            row = _find(connection, tenant, creation, self._clock())
        if row is None or creation.key is None:
            return None
        if whole:
            _require_same(row, creation)
        return str(row.made)

    def drop_creations(self) -> int:
        """Forget what need not be remembered any longer; answers with how many."""
        return drop_expired(self._database, creations, self._clock())


def require_new(
    connection: Connection,
    tenant: str,
    now: datetime,
    *said: str,
    stands: Callable[[str], bool] | None = None,
) -> Callable[[str], None]:
    """Refuse to make something once more. Answers with what remembers the thing that is made: call it in the
    same transaction. Both do nothing for a change that `StoreBase.creating` did not announce.

    Args:
        said: what else the request says, known only now.
        stands: whether a thing still is as it was asked for; if not, a request without a key makes another.
            None where a request without a key always does.

    Raises:
        MadeBefore: it was made.
        InvalidError: `idempotency_key_reused`.
    """
    announced = creation_of(connection)
    if announced is None or (announced.key is None and stands is None):
        return _forget
    creation = announced.including(*said)
    row = _find(connection, tenant, creation, now)
    if row is not None:
        _require_same(row, creation)
        if creation.key is not None or stands is None or stands(row.made):
            raise MadeBefore(row.made)

    def remember(made: str) -> None:
        name, lasts = _name(creation), UNKEYED if creation.key is None else KEYED
        before = (creations.c.tenant == tenant, creations.c.name == name)
        connection.execute(delete(creations).where(*before))
        connection.execute(
            insert(creations).values(
                tenant=tenant, name=name, said=_digest(creation.said), made=made, expires_at=now + lasts
            )
        )

    return remember


def _find(connection: Connection, tenant: str, creation: Creation, now: datetime) -> Row[Any] | None:
    query: Select[Any] = select(creations.c.made, creations.c.said).where(
        creations.c.tenant == tenant, creations.c.name == _name(creation), creations.c.expires_at > now
    )
    return connection.execute(query).one_or_none()


def _require_same(row: Row[Any], creation: Creation) -> None:
    if row.said != _digest(creation.said):
        hours = KEYED // timedelta(hours=1)
        raise InvalidError(
            f"In the last {hours} hours this Idempotency-Key came with another request: send every request "
            "with a key of its own, and one key twice only to repeat a request unchanged.",
            field="Idempotency-Key",
            code="idempotency_key_reused",
        )


def _name(creation: Creation) -> str:
    if creation.key is not None:
        return _digest(("key", creation.key))
    return _digest(("unkeyed", creation.sender, *creation.said))


def _digest(parts: tuple[str, ...]) -> str:
    """SHA-256 (hex) of texts, by which no two lists of them are confused."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _forget(made: str) -> None: ...
