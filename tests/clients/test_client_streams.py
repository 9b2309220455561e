"""Streams of events: cut anywhere, broken, left early."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus import AsyncClient, Client, DoneEvent, ErrorEvent, ResultEvent, TokenEvent, errors
from chorus.sse import EventDecoder
from tests.clients.fake_chorus import FakeChorus, event

GENERATION = {
    "task": None,
    "text": "é ▁\n",
    "finish_reason": "stop",
    "usage": {"input_tokens": 1, "prompt_tokens": 0, "output_tokens": 1},
}
STREAM = (
    b": hello\r\n\r\n"
    + event("token", {"index": 0, "choice": 0, "text": "é ▁\n", "tokens": [5]})
    + b'event: brand_new\ndata: {"x": 1}\n\n'
    + event("result", {"index": 0, "result": GENERATION})
    + b'id: 7\nretry: 10\nevent: error\ndata: {"index": 1,\n'
    + b'data: "error": {"code": "internal", "message": "no"}}\r\n\r\n'
    + event("done", {"id": "req_1"})
)


def decode(chunks: list[bytes]) -> list[object]:
    decoder = EventDecoder(None)
    found = [one for chunk in chunks for one in decoder.feed(chunk)]
    decoder.finish()
    return found


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    found = decode([STREAM[a:b] for a, b in itertools.pairwise(edges)])
    assert [type(one) for one in found] == [TokenEvent, ResultEvent, ErrorEvent, DoneEvent]
    token = found[0]
    assert isinstance(token, TokenEvent) and token.text == "é ▁\n"


def test_a_stream_without_its_end_is_broken() -> None:
    with pytest.raises(errors.ConnectionLostError):
        decode([STREAM[:-1]])


@pytest.mark.parametrize("data", [b"{}", b"nonsense", b'{"index": "x", "text": 1}', b"\xff"])
def test_events_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(errors.UnexpectedAnswerError):
        decode([b"event: token\ndata: " + data + b"\n\n"])


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    most, piece = 4 * 2**20, b"x" * 2**20
    decoder = EventDecoder(most)
    with pytest.raises(errors.UnexpectedAnswerError, match="max_answer_bytes"):
        for _ in range(5):
            list(decoder.feed(piece))
    decoder = EventDecoder(most)
    with pytest.raises(errors.UnexpectedAnswerError, match="max_answer_bytes"):
        for _ in range(5):
            list(decoder.feed(b"data: " + piece + b"\n"))
    decoder = EventDecoder(most)  # control: the same bytes in events that end
    for _ in range(5):
        list(decoder.feed(b"event: other\ndata: " + piece + b"\n\n"))


def test_a_long_line_is_looked_through_once() -> None:
    """However small its chunks: 8 MB in 64,000 of them cost a moment, not minutes."""
    decoder, chunk = EventDecoder(None), b"x" * 128
    started = time.thread_time()
    for _ in range(64_000):
        list(decoder.feed(chunk))
    assert time.thread_time() - started < 5


def test_texts_of_tokens_join_to_the_result(url: str, fake: FakeChorus) -> None:
    with Client(url) as client, client.stream(inputs=["hello there", "fail"], max_new_tokens=4) as events:
        found = list(events)
    tokens = [one.text for one in found if isinstance(one, TokenEvent) and one.index == 0]
    results = [one.result.text for one in found if isinstance(one, ResultEvent)]
    assert "".join(tokens) == results[0] == "HELLO THERE"
    assert [one.error.code for one in found if isinstance(one, ErrorEvent)] == ["internal"]
    assert json.loads(fake.seen[-1].content)["stream"] is True


def test_async_stream(url: str) -> None:
    async def read() -> list[str]:
        async with AsyncClient(url) as client, client.stream(input="abcd") as events:
            return [one.text async for one in events if isinstance(one, TokenEvent)]

    assert asyncio.run(read()) == ["AB", "CD"]


def test_a_refused_stream_raises_when_read(client: Client) -> None:
    with client.stream("nobody", input="x") as events, pytest.raises(errors.NotFoundError) as raised:
        next(events)
    assert raised.value.field == "requests.0.task"


def one_token_then(listener: socket.socket, left: threading.Event) -> None:
    """Sends one token, then tells when the client has gone."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(300)
        received = b""
        while not received.endswith(b"}"):
            received += connection.recv(65536)
        body = event("token", {"index": 0, "choice": 0, "text": "a", "tokens": [1]})
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head + f"{len(body):x}\r\n".encode() + body + b"\r\n")
        if connection.recv(1) == b"":
            left.set()


def test_leaving_early_closes_the_connection() -> None:
    left = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=one_token_then, args=(listener, left))
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with client.stream(input="x") as events:
                assert isinstance(next(events), TokenEvent)
                assert not left.is_set()
            assert left.wait(300)
        thread.join()


def test_leaving_early_closes_the_connection_async() -> None:
    left = threading.Event()

    async def read(port: int) -> None:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            async with client.stream(input="x") as events:
                assert isinstance(await anext(events), TokenEvent)
            assert await asyncio.to_thread(left.wait, 300)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=one_token_then, args=(listener, left))
        thread.start()
        asyncio.run(read(listener.getsockname()[1]))
        thread.join()


def test_a_connection_that_breaks_in_the_middle() -> None:
    class Broken(httpx2.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield STREAM[:60]
            raise httpx2.ReadError("reset")

    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, stream=Broken())

    client = Client(transport=httpx2.MockTransport(answer))
    with client, client.stream(input="x") as events, pytest.raises(errors.ConnectionLostError):
        list(events)
    assert len(asked) == 1, "tokens were seen: the request must not be sent again"
