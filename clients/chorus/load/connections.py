"""Many connections without the cost of one large pool.

httpcore2 scans its whole pool whenever a request begins or ends, so with hundreds of connections the
generator would measure itself. Here they are spread over small pools, and a request takes the least busy one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx2

CONNECTIONS_A_POOL = 8


class SpreadTransport(httpx2.AsyncBaseTransport):
    """At most `connections` connections, in pools of a few each. It uses no proxies."""

    def __init__(self, connections: int) -> None:
        context = httpx2.create_ssl_context()
        sizes = [CONNECTIONS_A_POOL] * (connections // CONNECTIONS_A_POOL)
        if connections % CONNECTIONS_A_POOL:
            sizes.append(connections % CONNECTIONS_A_POOL)
        self._pools = [
            httpx2.AsyncHTTPTransport(
                verify=context,
                trust_env=False,
                limits=httpx2.Limits(max_connections=size, max_keepalive_connections=size),
            )
            for size in sizes
        ]
        self._free = sizes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send over the pool with the most free connections, and occupy one until the body is closed."""
        index = max(range(len(self._pools)), key=self._free.__getitem__)
        self._free[index] -= 1
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._free[index] += 1

        try:
            response = await self._pools[index].handle_async_request(request)
        except BaseException:
            release()
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Released(response.stream, release)
        return response

    async def aclose(self) -> None:
        """Close every pool."""
        for pool in self._pools:
            await pool.aclose()


class _Released(httpx2.AsyncByteStream):
    """A body that reports when it is closed."""

    def __init__(self, stream: httpx2.AsyncByteStream, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._release()
