"""What one call may take: time in all, whatever drips, and bytes of an answer, whatever they unpack to."""

from __future__ import annotations

import asyncio
import functools
import io
import itertools
import json
import re
import socket
import threading
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus import AsyncClient, Client, errors, saving
from tests.clients.fake_chorus import refuse

BLOCKING, AWAITING = "blocking", "awaiting"
CLIENTS = pytest.mark.parametrize("kind", [BLOCKING, AWAITING])
SHORT = 0.3
"""Seconds; a machine that is busy only makes the limit come later."""
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
READY = b'{"status": "ok"}'
Talk = Callable[[socket.socket], None]


@contextmanager
def serving(talk: Talk, *, reads_body: bool = True) -> Iterator[str]:
    """A raw server on loopback: reads a request, then talks as told, on every connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := connection.recv(1)):
                    return  # the client gave up before
                head += piece
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            left = int(length[1]) if length and reads_body else 0
            while left and (piece := connection.recv(left)):
                left -= len(piece)
            talk(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def call(kind: str, url: str, ask: Callable[[Any], Any], **options: Any) -> Any:
    """What a call of either client gives."""
    options = {"retries": 0, "timeout_seconds": None} | options
    if kind == BLOCKING:
        with Client(url, **options) as client:
            return ask(client)

    async def awaited() -> Any:
        async with AsyncClient(url, **options) as client:
            return await ask(client)

    return asyncio.run(awaited())


def streamed(kind: str, url: str, **options: Any) -> list[Any]:
    """The events of a stream of either client."""
    options = {"retries": 0, "timeout_seconds": None} | options
    if kind == BLOCKING:
        with Client(url, **options) as client, client.stream(None, input="x") as events:
            return list(events)

    async def awaited() -> list[Any]:
        async with AsyncClient(url, **options) as client, client.stream(None, input="x") as events:
            return [event async for event in events]

    return asyncio.run(awaited())


def drip(first: bytes, each: bytes, last: bytes | None = None, count: int | None = None) -> Talk:
    """Sends `first`, then `each` again and again (or `count` times, and `last`), a little at a time."""
    pause = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(first)
        sent = 0
        while count is None or sent < count:
            for n in range(len(each)):
                connection.sendall(each[n : n + 1])
            sent += 1
            pause.wait(0.002)
        connection.sendall(last or b"")

    return talk


DRIPS: dict[str, tuple[bytes, bytes]] = {
    "a header": (OK + b"X-Long: ", b"x"),
    "headers": (OK, b"X-One: 1\r\n"),
    "answers before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "a body in chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "the body of an error": (b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n", b" "),
}


@CLIENTS
@pytest.mark.parametrize("what", DRIPS)
def test_a_server_that_drips_for_ever_ends_in_the_timeout(what: str, kind: str) -> None:
    """No wait is long, and there is no limit for one: the call's own ends it."""
    with (
        serving(drip(*DRIPS[what])) as url,
        pytest.raises(errors.CallTimeoutError, match="total_seconds"),
    ):
        call(kind, url, lambda client: client.health(), total_seconds=SHORT)


@CLIENTS
def test_the_control_is_an_answer_that_drips_and_ends(kind: str) -> None:
    first = OK + b"X-Long: "
    last = b"\r\nContent-Length: %d\r\n\r\n" % len(READY) + READY
    with serving(drip(first, b"x", last, count=50)) as url:
        assert call(kind, url, lambda client: client.health(), total_seconds=None).status == "ok"


@CLIENTS
def test_the_limit_goes_by_the_clock_of_the_call(kind: str) -> None:
    """On a clock that goes a second each time it is looked at, which is with every chunk."""
    looks = itertools.count()
    with (
        serving(drip(*DRIPS["a body"])) as url,
        pytest.raises(errors.CallTimeoutError, match="30 seconds"),
    ):
        call(kind, url, lambda client: client.health(), total_seconds=30.0, clock=lambda: float(next(looks)))
    assert next(looks) < 40


@CLIENTS
def test_a_stream_has_the_time_for_each_event(kind: str) -> None:
    token = b'event: token\ndata: {"index": 0, "choice": 0, "text": "a", "tokens": [1]}\n\n'
    done = b'event: done\ndata: {"id": "req_1"}\n\n'
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    with serving(drip(stream + token, b"data: x")) as url, pytest.raises(errors.CallTimeoutError):
        streamed(kind, url, total_seconds=SHORT)
    # Many events that together take longer are well.
    with serving(drip(stream, token, done, count=40)) as url:
        assert len(streamed(kind, url, total_seconds=30)) == 41


def test_events_that_come_restart_the_limit() -> None:
    """On a clock that goes 20 seconds an event, a limit of 30 ends nothing; the caller's own time counts as
    nobody's."""
    seconds = 0.0
    events = [json.dumps({"index": 0, "choice": 0, "text": "a", "tokens": [1]})] * 9
    body = b"".join(b"event: token\ndata: %s\n\n" % each.encode() for each in events)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body + b'event: done\ndata: {"id": "r"}\n\n')

    with (
        Client(transport=httpx2.MockTransport(answer), total_seconds=30.0, clock=lambda: seconds) as client,
        client.stream(None, input="x") as stream,
    ):
        for _ in stream:
            seconds += 20.0
    assert seconds == 200.0


@CLIENTS
def test_a_server_that_takes_no_upload_ends_in_the_timeout(kind: str) -> None:
    rows = b'{"text": "a", "label": "b"}\n' * 400_000
    gone = threading.Event()
    with serving(lambda connection: gone.wait(300), reads_body=False) as url:
        with pytest.raises(errors.CallTimeoutError, match="total_seconds"):
            call(kind, url, lambda client: client.files.push(rows, name="a.jsonl"), total_seconds=SHORT)
        gone.set()


@CLIENTS
def test_retries_and_their_waits_count(kind: str) -> None:
    seconds = 0.0
    asked: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(seconds)
        return refuse(503, "overloaded", "Wait.", None, Retry_After="4")

    def sleep(wait: float) -> Any:
        nonlocal seconds
        seconds += wait
        return asyncio.sleep(0) if kind == AWAITING else None

    options: dict[str, Any] = {
        "transport": httpx2.MockTransport(answer), "retries": 100, "sleep": sleep, "clock": lambda: seconds,
    }  # fmt: skip
    with pytest.raises(errors.OverloadedError) as caught:
        call(kind, "http://127.0.0.1:1", lambda client: client.health(), total_seconds=10.0, **options)
    assert len(asked) == 3 and seconds < 10.0, "a wait that would outlast the call is not begun"
    assert caught.value.retry_after_seconds == 4
    asked.clear()
    with pytest.raises(errors.OverloadedError):
        call(kind, "http://127.0.0.1:1", lambda client: client.health(), total_seconds=None, **options)
    assert len(asked) > 3, "control: it is the limit that ended it"


def test_all_pages_of_a_list_are_one_call() -> None:
    """A server that has always one more page."""
    seconds = 0.0

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal seconds
        seconds += 4.0
        return httpx2.Response(200, json={"files": [], "next_cursor": "more"})

    with (
        Client(transport=httpx2.MockTransport(answer), total_seconds=30.0, clock=lambda: seconds) as client,
        pytest.raises(errors.CallTimeoutError),
    ):
        client.files.list()
    assert seconds <= 34.0


@pytest.mark.parametrize("name", ["timeout_seconds", "total_seconds"])
@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e300])
def test_limits_that_no_clock_takes_are_refused(name: str, seconds: float) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(errors.InvalidArgumentError) as caught:
            kind(**{name: seconds})
        assert caught.value.field == name and "None for no limit" in str(caught.value)
    with pytest.raises(errors.InvalidArgumentError):
        Client(max_answer_bytes=0)


LARGE = json.dumps({"status": "ok", "more": "x" * 100_000}).encode()


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK", told: bool = True) -> Talk:
    """One answer; with `told`, its length stands before it."""

    def talk(connection: socket.socket) -> None:
        length = b"Content-Length: %d\r\n" % len(body) if told else b"Connection: close\r\n"
        connection.sendall(
            b"HTTP/1.1 %s\r\n%s%s\r\n" % (status, length, b"".join(h + b"\r\n" for h in headers))
        )
        connection.sendall(body)

    return talk


OVERLONG: dict[str, Talk] = {
    "one that tells its length": whole(LARGE),
    "one that does not": whole(LARGE, told=False),
    "an error": whole(LARGE, status=b"404 Not Found", told=False),
}


@CLIENTS
@pytest.mark.parametrize("what", OVERLONG)
def test_an_answer_has_a_bound(what: str, kind: str) -> None:
    with serving(OVERLONG[what]) as url:
        with pytest.raises(errors.UnexpectedAnswerError, match="max_answer_bytes"):
            call(kind, url, lambda client: client.health(), max_answer_bytes=50_000)
        for most in (200_000, None):  # control: what is within it is read
            if what == "an error":
                with pytest.raises(errors.UnexpectedAnswerError, match="status 404"):
                    call(kind, url, lambda client: client.health(), max_answer_bytes=most)
            else:
                health = call(kind, url, lambda client: client.health(), max_answer_bytes=most)
                assert health.status == "ok"


@functools.cache
def bomb() -> bytes:
    """128 MiB of zeros in 128 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()


@CLIENTS
@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", "deflate", "gzip, gzip", "identity, gzip", "br", "zstd", "x"]
)
def test_a_bomb_is_not_unpacked(encoding: str, kind: str) -> None:
    """Plain bytes are asked for; what comes packed all the same is not read."""
    talk = whole(bomb(), b"Content-Encoding: " + encoding.encode())
    with serving(talk) as url:
        tracemalloc.start()
        with pytest.raises(errors.UnexpectedAnswerError, match="plain bytes"):
            call(kind, url, lambda client: client.health(), max_answer_bytes=None)
        with pytest.raises(errors.UnexpectedAnswerError, match="plain bytes"):
            streamed(kind, url, max_answer_bytes=None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


def test_the_control_is_unpacked() -> None:
    with serving(whole(bomb(), b"Content-Encoding: gzip")) as url, httpx2.Client() as careless:
        assert len(careless.get(f"{url}/healthz").content) == 128 << 20


@CLIENTS
def test_plain_bytes_are_asked_for(kind: str) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx2.Response(200, content=READY, headers={"content-encoding": "identity"})

    transport = httpx2.MockTransport(answer)
    assert (
        call(kind, "http://127.0.0.1:1", lambda client: client.health(), transport=transport).status == "ok"
    )
    assert asked == ["identity"]


@CLIENTS
def test_an_event_of_a_stream_has_the_bound(kind: str) -> None:
    event = b'event: token\ndata: {"index": 0, "choice": 0, "text": "%s", "tokens": [1]}\n\n'
    body = event % (1_000 * b"a") * 100 + b'event: done\ndata: {"id": "r"}\n\n'
    with serving(whole(body)) as url:
        assert len(streamed(kind, url, max_answer_bytes=5_000)) == 101, "the stream may be longer"
        with pytest.raises(errors.UnexpectedAnswerError, match="max_answer_bytes"):
            streamed(kind, url, max_answer_bytes=500)


@CLIENTS
def test_a_download_has_the_bound(kind: str, tmp_path: Path) -> None:
    with serving(whole(LARGE)) as url:
        with pytest.raises(errors.UnexpectedAnswerError, match="max_answer_bytes"):
            call(kind, url, lambda client: client.tasks.artifact("a", 1), max_answer_bytes=50_000)
        assert call(kind, url, lambda client: client.tasks.artifact("a", 1)) == LARGE


def test_a_zip_that_unpacks_to_more_than_a_prompt_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "MAX_ARTIFACT_BYTES", 1 << 20)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", b"{}")
        archive.writestr("adapter_model.safetensors", bytes(1 << 21))
    packed = target.getvalue()
    assert len(packed) < 1 << 14
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=packed))
    with (
        Client(transport=transport) as client,
        pytest.raises(errors.UnexpectedAnswerError, match="unpacks to more than"),
    ):
        client.tasks.pull("a", tmp_path / "folder", version=1, format="peft")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with Client(transport=transport) as client:  # control: the bound is what refused it
        client.tasks.pull("a", tmp_path / "folder", version=1, format="peft")
