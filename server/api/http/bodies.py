"""Request bodies in memory: each counted as it arrives, all of them against one budget of the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from fastapi import Request

from server.errors import OverloadedError, TooLargeError

FREE_BYTES = 64 << 10
"""Of each body, these are not counted: no more than its socket holds, and so a small body always gets in."""


class BodyBudget:
    """How many bytes of bodies may be in memory at once.

    A tenant may hold as much as it leaves free: alone half of the budget, so that others find room.

    Args:
        limit_bytes: of all tenants together.

    Attributes:
        held_bytes: now.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._tenants: Counter[str] = Counter()

    def has_room(self, tenant: str, count: int) -> bool:
        """Whether a tenant may hold so many bytes more."""
        return self._tenants[tenant] + count <= self.limit_bytes - self.held_bytes - count

    def take(self, tenant: str, count: int) -> None:
        """Hold so many bytes more, or fewer: `count` may be negative."""
        self.held_bytes += count
        self._tenants[tenant] += count
        if not self._tenants[tenant]:
            del self._tenants[tenant]


class BodyShare:
    """What one request holds of the budget; its middleware gives it back, however the request ends."""

    def __init__(self, budget: BodyBudget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self._size = 0

    def grow(self, count: int) -> bool:
        """Hold so many bytes more. False, and nothing has changed, where the budget has no room for them."""
        more = max(0, self._size + count - FREE_BYTES) - max(0, self._size - FREE_BYTES)
        if more and not self._budget.has_room(self._tenant, more):
            return False
        self._budget.take(self._tenant, more)
        self._size += count
        return True

    def release(self) -> None:
        """Hold nothing."""
        self._budget.take(self._tenant, -max(0, self._size - FREE_BYTES))
        self._size = 0


async def body_chunks(request: Request, limit: int, share: BodyShare) -> AsyncIterator[bytes]:
    """The body as it arrives, for a caller who keeps it.

    Raises:
        TooLargeError: it is longer than `limit` bytes, by its Content-Length or in fact.
        OverloadedError: the budget has no room for what has arrived.
    """
    if declares_more(request, limit):
        raise _too_large(limit)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if not share.grow(len(chunk)):
            raise OverloadedError(
                "The bodies of other requests fill the memory that there is for them: try again later.",
                retry_after_seconds=1,
            )
        yield chunk


def declares_more(request: Request, limit: int) -> bool:
    """Whether the Content-Length says more than `limit` bytes."""
    declared = request.headers.get("content-length", "")
    return declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit)


def media_type(request: Request) -> str:
    """What the Content-Type says, without its parameters; empty where there is none."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_body(request: Request, limit: int, share: BodyShare) -> bytearray:
    """The whole body. Raises as `body_chunks`."""
    body = bytearray()  # a list of chunks weighs many times its bytes where they drip in
    async for chunk in body_chunks(request, limit, share):
        body += chunk
    return body


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than the {limit} bytes that this server reads: send fewer or shorter inputs.",
        field="body",
    )
