"""Request bodies in memory. Each is counted as it arrives, and together they share one budget of the
process."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from fastapi import Request

from chorus_server.errors import OverloadedError, TooLargeError

FREE_BYTES = 64 << 10
"""The first bytes of each body are not counted. Its socket holds as many anyway, and so a small body always
gets in."""


class BodyBudget:
    """How many bytes of bodies may be in memory at once.

    A tenant may hold as much as it leaves free: half of the budget if it is alone, so that others find room.

    Args:
        limit_bytes: for all tenants together.

    Attributes:
        held_bytes: how many are held now.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._tenants: Counter[str] = Counter()

    def has_room(self, tenant: str, count: int) -> bool:
        """Whether a tenant may hold `count` more bytes."""
        return self._tenants[tenant] + count <= self.limit_bytes - self.held_bytes - count

    def take(self, tenant: str, count: int) -> None:
        """Hold `count` more bytes; a negative `count` gives bytes back."""
        self.held_bytes += count
        self._tenants[tenant] += count
        if not self._tenants[tenant]:
            del self._tenants[tenant]


class BodyShare:
    """The part of the budget that one request holds. Its middleware gives it back, however the request
    ends."""

    def __init__(self, budget: BodyBudget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self._size = 0

    def grow(self, count: int) -> bool:
        """Hold `count` more bytes. If the budget has no room for them, returns False and changes nothing."""
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
    """The body as it arrives, for a caller that keeps it.

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
                "The bodies of other requests fill the memory set aside for bodies: try again later.",
                retry_after_seconds=1,
            )
        yield chunk


def declares_more(request: Request, limit: int) -> bool:
    """Whether the Content-Length is above `limit` bytes."""
    return declared_bytes(request) > limit


def declared_bytes(request: Request) -> int:
    """The Content-Length, at most 10^18; 0 if there is none."""
    declared = request.headers.get("content-length", "")
    return int(declared.lstrip("0")[:19] or 0) if declared.isascii() and declared.isdigit() else 0


def media_type(request: Request) -> str:
    """The Content-Type without its parameters; empty if there is none."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_body(request: Request, limit: int, share: BodyShare) -> bytearray:
    """The whole body. Raises like `body_chunks`."""
    body = bytearray()  # a list of chunks takes many times their bytes if they drip in
    async for chunk in body_chunks(request, limit, share):
        body += chunk
    return body


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than the {limit} bytes that this server reads: send fewer or shorter inputs.",
        field="body",
    )
