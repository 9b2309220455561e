"""Lists as OpenAI's clients page through them: `after` is the id of the last item that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query, Response

from chorus_server.api.inference.answers import list_response
from chorus_server.errors import InvalidInputError
from prompts_store.ids import is_id
from prompts_store.pages import MAX_LIMIT, encode_cursor

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


async def object_list(items: Sequence[T], make: Callable[[T], Mapping[str, Any]], more: bool) -> Response:
    """One page."""
    ends = [make(item)["id"] for item in (items[0], items[-1])] if items else [None, None]
    after = {"first_id": ends[0], "last_id": ends[1], "has_more": more}
    return await list_response("data", map(make, items), before={"object": "list"}, after=after)
