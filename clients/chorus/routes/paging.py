"""Lists that come in pages, fetched whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from chorus.wire import Call, Steps

PAGE = 500
"""Most items of a page."""

_MAX_PAGES = 10_000

T = TypeVar("T")


class Paged(Protocol):
    """A page that names the next one."""

    @property
    def next_cursor(self) -> str | None: ...


P = TypeVar("P", bound=Paged)


def every(page_at: Callable[[str | None], Call[P]], items: Callable[[P], list[T]]) -> Steps[list[T]]:
    """Every item of a list, page after page.

    Args:
        page_at: asks for the page at a cursor; None is the first.
        items: of a page.
    """
    found: list[T] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = yield from page_at(cursor)
        found.extend(items(page))
        cursor = page.next_cursor
        if cursor is None:
            break
    return found
