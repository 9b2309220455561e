"""Lists as OpenAI's clients page through them: `after` is the id of the last item that they have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query, Response

from chorus_server.api.inference.answers import list_response
from chorus_server.errors import InvalidInputError
from prompts_store.errors import InvalidError
from prompts_store.ids import is_id
from prompts_store.pages import MAX_LIMIT, encode_cursor
from prompts_store.records import Page

T = TypeVar("T")

After = Annotated[str | None, Query(max_length=256, description="Id of the last item of the page before.")]
MostItems = Annotated[int, Query(ge=1, le=10_000, description=f"Items of a page; {MAX_LIMIT} at most come.")]


def page_limit(asked: int) -> int:
    """Items of a page of the store."""
    return min(asked, MAX_LIMIT)


def cursor_after(kind: str, after: str | None) -> str | None:
    """The store's cursor for what comes after an item.

    Raises:
        InvalidInputError: it has not the form of an id, field `after`.
    """
    if after is not None and not is_id(after):
        raise InvalidInputError("It is the id of the last item that you have.", field="after")
    return None if after is None else encode_cursor(kind, after)


async def items_after(
    read: Callable[..., Awaitable[Page[T]]],
    cursor: str | None,
    limit: int,
    keep: Callable[[T], bool] = lambda _: True,
) -> tuple[list[T], bool]:
    """The next items of a list of the store that its reader may see, and whether there are more. Pages of the
    store are read until there are enough or the store has no more, since a client ends at an empty page.

    Args:
        read: gives a page of the store; takes `limit` and `cursor`.
        limit: most items.
        keep: whether the reader may see an item.

    Raises:
        InvalidInputError: the store has not what the cursor is of, field `after`.
    """
    found: list[T] = []
    asked = limit + 1
    while True:
        try:
            page = await read(limit=min(asked, MAX_LIMIT), cursor=cursor)
        except InvalidError as error:
            if error.field != "cursor":
                raise
            message = "There is no such item: send the id of the last item that you have."
            raise InvalidInputError(message, field="after", code=error.code) from error
        found += filter(keep, page.items)
        cursor, asked = page.next_cursor, MAX_LIMIT
        if cursor is None or len(found) > limit:
            return found[:limit], len(found) > limit


async def object_list(items: Sequence[T], make: Callable[[T], Mapping[str, Any]], more: bool) -> Response:
    """One page."""
    ends = [make(item)["id"] for item in (items[0], items[-1])] if items else [None, None]
    after = {"first_id": ends[0], "last_id": ends[1], "has_more": more}
    return await list_response("data", map(make, items), before={"object": "list"}, after=after)
