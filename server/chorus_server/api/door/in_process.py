"""Requests that this process's own console sends, without a network in between.

They may bring a session's token in place of a key. Nobody else's may: what marks them is a key of the ASGI
scope, which no byte of a request can set.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
from starlette.types import ASGIApp, Message, Scope

_MARK = "chorus.in_process"
_SESSION = "Bearer cs_"


class InProcess(httpx2.AsyncBaseTransport):
    """Carries a client's requests to the API of this process, and answers back as they are made. At most two
    pieces of an answer wait for whoever reads it; the API makes the next one when there is room.

    Args:
        app: the API.
        address: of the browser that the console asks for.
    """

    def __init__(self, app: ASGIApp, address: str) -> None:
        self._app = app
        self._address = address

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, once it has begun. Its reader must close it, which the client does."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port),
            "client": (self._address, 0),
            "root_path": "",
            _MARK: True,
        }
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        answer = _Answer(self._app, scope, request.stream)
        try:
            status, headers = await answer.begun
        except BaseException:
            await answer.aclose()
            raise
        return httpx2.Response(status, headers=headers, stream=answer)


class _Answer(httpx2.AsyncByteStream):
    """One request on its way through the API, which is told that its caller left when this is closed.

    Attributes:
        begun: status and headers.
    """

    def __init__(self, app: ASGIApp, scope: Scope, body: httpx2.AsyncByteStream) -> None:
        self._body = aiter(body)
        self._sent = self._whole = self._left = False
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._over = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = loop.create_future()
        self._run = loop.create_task(self._through(app, scope))

    async def _through(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception:  # the API has logged it, and has answered if it could
            pass
        finally:
            self._over.set()
            if not self.begun.done():
                self.begun.set_result((500, []))
                self._whole = True
            if not self._left:
                await self._pieces.put(None)

    async def _receive(self) -> Message:
        if not self._sent and not self._over.is_set():
            piece = await anext(self._body, None)
            self._sent = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._left:
            return
        if message["type"] == "http.response.start":
            if self.begun.done():  # who waited for it was cancelled, and is about to say so
                return
            self.begun.set_result((message["status"], list(message.get("headers", ()))))
            return
        if piece := message.get("body", b""):
            await self._pieces.put(piece)
        if not message.get("more_body", False):
            self._whole = True
            self._over.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
        if not self._whole:
            raise httpx2.RemoteProtocolError("the answer broke off")

    async def aclose(self) -> None:
        """Tell the API that nobody reads any more, and wait until it is done with the request."""
        self._left = True
        self._over.set()
        while not self._pieces.empty():  # lets go of a piece that waits for room
            self._pieces.get_nowait()
        await self._run


def session_token(scope: Scope, authorization: str | None) -> str | None:
    """The session's token that a request of the console brings; None for any other request."""
    if scope.get(_MARK) is not True or authorization is None or not authorization.startswith(_SESSION):
        return None
    return authorization.removeprefix("Bearer ")
