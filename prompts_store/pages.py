"""Lists in pages. A cursor of a key says after which to continue, so every page costs the same; one of a
history says how many moves are older, and a page costs as many more steps of the index."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table, select

from prompts_store.errors import InvalidError
from prompts_store.records import Page
from prompts_store.text import shown

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
_MAX_CURSOR_CHARACTERS = 256

Row = TypeVar("Row")
Item = TypeVar("Item")


def check_limit(limit: object) -> int:
    """The number of items on a page.

    Raises:
        InvalidError: `invalid_limit`, field `limit`: not 1 to 500.
    """
    if isinstance(limit, int) and not isinstance(limit, bool) and 1 <= limit <= MAX_LIMIT:
        return limit
    raise InvalidError(
        f"{shown(limit)} is not a page size; ask for 1 to {MAX_LIMIT} items.",
        field="limit",
        code="invalid_limit",
    )


def encode_cursor(kind: str, key: str | int) -> str:
    """An opaque text for the last key of a page.

    Args:
        kind: the list that it belongs to; other lists refuse it.
    """
    body = json.dumps([kind, key], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def decode_cursor(kind: str, cursor: str | None, check: Callable[[object], Row]) -> Row | None:
    """The key in a cursor; None for the first page.

    Args:
        check: returns the key in its type, or raises InvalidError, because a cursor comes from the caller.

    Raises:
        InvalidError: `invalid_cursor`, field `cursor`.
    """
    if cursor is None:
        return None
    try:
        if not isinstance(cursor, str) or len(cursor) > _MAX_CURSOR_CHARACTERS:
            raise ValueError("not a cursor")
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        # Strict enough: below, it must be what this list would write.
        body = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(body, list) or len(body) != 2 or body[0] != kind:
            raise ValueError("a cursor of another list")
        key = check(body[1])
        if encode_cursor(kind, body[1]) != cursor:
            raise ValueError("not a cursor that was given out")
        return key
    except (ValueError, binascii.Error, RecursionError, InvalidError) as error:
        raise invalid_cursor() from error


def invalid_cursor() -> InvalidError:
    """The error for a cursor that this list did not give out."""
    return InvalidError(
        "This list did not give out this cursor; send `next_cursor` of the previous page, or none "
        "for the first page.",
        field="cursor",
        code="invalid_cursor",
    )


def newest_rows(
    connection: Connection,
    query: Select[Any],
    table: Table,
    tenant: str,
    before: str | None,
    limit: int,
    *,
    oldest_first: bool = False,
) -> Sequence[Any]:
    """At most `limit + 1` rows of a query, newest first unless asked otherwise.

    Args:
        table: it has `id`, `tenant` and a `number` that grows.
        before: id of the last row of the previous page. Cursors contain it rather than the number, which
            would reveal how many rows all tenants have.

    Raises:
        InvalidError: `invalid_cursor`: the tenant has no such row.
    """
    if before is not None:
        last = select(table.c.number).where(table.c.id == before, table.c.tenant == tenant)
        number = connection.execute(last).scalar()
        if number is None:
            raise invalid_cursor()
        query = query.where(table.c.number > number if oldest_first else table.c.number < number)
    order = table.c.number.asc() if oldest_first else table.c.number.desc()
    return connection.execute(query.order_by(order).limit(limit + 1)).all()


def make_page(
    rows: Sequence[Row], limit: int, make: Callable[[Row], Item], cursor_of: Callable[[Row], str]
) -> Page[Item]:
    """A page from at most `limit + 1` rows. The extra row only shows that there is another page."""
    shown_rows = rows[:limit]
    more = len(rows) > limit
    return Page(tuple(make(row) for row in shown_rows), cursor_of(shown_rows[-1]) if more else None)
