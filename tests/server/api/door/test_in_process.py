"""The console's way to the API of its process: an answer is read as it is made."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from chorus_server.api.door.in_process import InProcess, session_token

PIECE = b"x" * (256 << 10)
PIECES = 100


class Api:
    """Answers with many pieces, as long as somebody is there.

    Attributes:
        made: how many pieces there were so far.
        told: whether it learned that its caller left.
        body: what was sent to it.
    """

    def __init__(self, breaks: str = "") -> None:
        self.breaks = breaks
        self.made = 0
        self.told = False
        self.body = b""
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        more = True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        if self.breaks == "before":
            raise RuntimeError("before the answer began")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-made", b"yes")]})
        leaving = asyncio.ensure_future(receive())
        while self.made < PIECES and not leaving.done():
            if self.breaks == "within" and self.made == 2:
                leaving.cancel()
                raise RuntimeError("within the answer")
            self.made += 1
            await send({"type": "http.response.body", "body": PIECE[:-1] + b"y", "more_body": True})
            await asyncio.sleep(0)  # whoever waits for the caller to leave has a turn
        self.told = leaving.done()
        if not self.told:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        assert (await leaving)["type"] == "http.disconnect"


def run(transport: httpx2.AsyncBaseTransport, then: Callable[[httpx2.AsyncClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await then(client)

    return asyncio.run(main())


def test_a_request_is_as_it_was_sent_and_marked() -> None:
    api = Api()

    async def ask(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/v1/x?a=b", content=b"sent", headers={"authorization": "Bearer cs_t"})

    answer = run(InProcess(api, "10.0.0.9"), ask)
    assert answer.status_code == 200 and answer.headers["x-made"] == "yes"
    assert len(answer.content) == PIECES * len(PIECE) and api.body == b"sent"
    assert (api.scope["path"], api.scope["query_string"], api.scope["client"][0]) == (
        "/v1/x",
        b"a=b",
        "10.0.0.9",
    )
    assert session_token(api.scope, "Bearer cs_t") == "cs_t"
    assert session_token({**api.scope, "chorus.in_process": b"yes"}, "Bearer cs_t") is None


async def piece_by_piece(client: httpx2.AsyncClient) -> int:
    """How many bytes came, with nothing kept."""
    count = 0
    async with client.stream("GET", "/") as answer:
        async for piece in answer.aiter_raw():
            count += len(piece)
    return count


def peak(transport: httpx2.AsyncBaseTransport) -> int:
    """Most bytes that were held while an answer of `PIECES` was read."""
    tracemalloc.start()
    assert run(transport, piece_by_piece) == PIECES * len(PIECE)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_a_large_answer_is_never_whole_in_memory() -> None:
    assert peak(InProcess(Api(), "")) < 8 * len(PIECE)


def test_control_another_transport_holds_all_of_it() -> None:
    assert peak(httpx2.ASGITransport(Api())) > PIECES * len(PIECE) / 2


def test_the_api_waits_for_who_reads_and_learns_that_he_left() -> None:
    api = Api()

    async def leave(client: httpx2.AsyncClient) -> int:
        async with client.stream("GET", "/") as answer:
            pieces = answer.aiter_raw()
            for _ in range(5):
                await anext(pieces)
            return api.made

    assert run(InProcess(api, ""), leave) <= 8
    assert api.told and api.made <= 10


def test_an_answer_may_begin_just_when_its_caller_is_cancelled() -> None:
    """The API is not told of it by an error that is none of its own."""
    failed: list[Exception] = []

    async def main() -> None:
        there, going = asyncio.Event(), asyncio.Event()

        async def api(scope: Scope, receive: Receive, send: Send) -> None:
            there.set()
            await going.wait()
            try:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            except Exception as error:
                failed.append(error)

        request = httpx2.Request("GET", "http://127.0.0.1/")
        asked = asyncio.ensure_future(InProcess(api, "").handle_async_request(request))
        await there.wait()
        going.set()  # the API's turn is before the caller's
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(main())
    assert failed == []


def test_an_api_that_fails_before_it_answers_is_a_500() -> None:
    assert run(InProcess(Api("before"), ""), lambda client: client.get("/")).status_code == 500


def test_an_answer_that_breaks_off_is_no_whole_one() -> None:
    with pytest.raises(httpx2.RemoteProtocolError, match="broke off"):
        run(InProcess(Api("within"), ""), lambda client: client.get("/"))
