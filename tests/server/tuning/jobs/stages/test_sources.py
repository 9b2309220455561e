"""Where jobs may read from: what the operator allows, and nothing beside it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.jobs.download import _Transfer, fetch_url
from chorus_server.tuning.document.data import DataSource
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.sources import allowed_path, check_url
from chorus_server.tuning.jobs.stages.sources import fetched as source_file
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import attempt


@pytest.fixture(autouse=True)
def ends_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives a download up waits until its thread has ended, however long that takes on a busy machine."""
    monkeypatch.setattr("chorus_server.jobs.download._END_SECONDS", 300.0)


def refused(path: str, roots: tuple[Path, ...]) -> str:
    with pytest.raises(InvalidInputError) as caught:
        allowed_path(path, roots, "data.train.path")
    assert caught.value.code == "data_not_allowed" and caught.value.field == "data.train.path"
    return caught.value.message


def test_paths_lie_under_a_root_links_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "secret.csv"
    (root / "deep").mkdir(parents=True)
    inside = root / "deep" / "train.csv"
    for file in (inside, outside):
        file.write_text("x")
    (root / "good").symlink_to(inside)
    (root / "bad").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (tmp_path / "data-too").mkdir()
    (tmp_path / "data-too" / "x.csv").write_text("x")
    roots = (root,)
    assert allowed_path(str(inside), roots, "f") == inside
    assert allowed_path(str(root / "good"), roots, "f") == inside
    assert allowed_path(str(root / "deep" / ".." / "good"), roots, "f") == inside
    assert allowed_path(str(outside), (root, outside), "f") == outside, "a root may be one file"
    wrong = [
        str(outside), str(root / "bad"), str(root / "folder" / "secret.csv"), f"{root}/../secret.csv",
        str(tmp_path / "data-too" / "x.csv"), str(root), str(root / "absent"), "deep/train.csv", "\0", "",
    ]  # fmt: skip
    messages = {refused(path, roots).split("is not a file")[1] for path in wrong}
    assert len(messages) == 1, "absent and forbidden answer alike"
    refused(str(inside), ())


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://data.example/sets/a.csv", True),
        ("https://data.example/sets/deep/a.csv?x=1", True),
        ("https://data.example:443/sets/a.csv", True),
        ("https://DATA.example/sets/a.csv", True),
        ("http://data.example/sets/a.csv", False),
        ("https://data.example/other/a.csv", False),
        ("https://data.example/sets2/a.csv", False),
        ("https://data.example/sets/../other/a.csv", False),
        ("https://data.example/sets/%2e%2e/other/a.csv", False),
        ("https://data.example/sets/%252e%252e/other/a.csv", False),
        ("https://data.example/sets/..\\other/a.csv", False),
        ("https://data.example.evil/sets/a.csv", False),
        ("https://data.example@evil/sets/a.csv", False),
        ("https://user@data.example/sets/a.csv", False),
        ("https://data.example:8443/sets/a.csv", False),
        ("https://data.example:x/sets/a.csv", False),
        ("https://[/sets/a.csv", False),
        ("https://169.254.169.254/sets/", False),
        ("https://data.example/sets/a\tb.csv", False),
        ("https://data.example/sets/\n../other/a.csv", False),
        ("\thttps://data.example/sets/a.csv", False),
        ("https://data.example/sets/ä.csv", False),
    ],
)
def test_urls_begin_as_the_operator_allows(url: str, allowed: bool) -> None:
    try:
        check_url(url, ("https://data.example/sets/",), "f")
        found = True
    except InvalidInputError as error:
        assert error.code == "data_not_allowed"
        found = False
    assert found is allowed


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A loopback server; `answer` writes each response."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def say(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def fetched(url: str, target: Path, interrupt: Callable[[], None], **more: Any) -> None:
    fetch_url(
        url,
        target,
        max_bytes=256 << 20,
        seconds=600,
        allowed=lambda other: None,
        interrupt=interrupt,
        field="data.train.url",
        **more,
    )


def opened(folder: Path, **changes: Any) -> Attempt:
    return attempt(PromptStore.open(folder), folder, **changes)


def test_a_download_is_kept_and_read_again_without_the_net(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        if handler.path == "/data/moved.csv":
            say(handler, 302, Location="/data/train.csv")
        else:
            say(handler, 200, b"text,label\na,b\n")

    with web(answer) as url:
        made = opened(tmp_path, data_urls=(f"{url}/data/",))
        source = DataSource(url=f"{url}/data/moved.csv")
        with source_file(made, source, "data.train") as first:
            pass
        with source_file(made, source, "data.train") as again:
            pass
    assert first == again and first[1] == "moved.csv"
    assert first[0].read_bytes() == b"text,label\na,b\n"
    assert asked == ["/data/moved.csv", "/data/train.csv"]


def _refusal(
    tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], **changes: Any
) -> InvalidInputError:
    with web(answer) as url:
        made = opened(tmp_path, data_urls=(f"{url}/data/",), **changes)
        with pytest.raises(InvalidInputError) as caught:
            source_file(made, DataSource(url=f"{url}/data/x.csv"), "data.train").__enter__()
    assert caught.value.field == "data.train.url"
    assert not [file for file in made.folder.rglob("*") if file.is_file()]
    return caught.value


def test_a_redirect_out_of_what_is_allowed_is_not_followed(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        say(handler, 302, Location="/private/x.csv")

    assert _refusal(tmp_path, answer).code == "data_not_allowed"
    assert asked == ["/data/x.csv"]


def test_redirects_end(tmp_path: Path) -> None:
    refused = _refusal(tmp_path, lambda handler: say(handler, 302, Location="/data/x.csv"))
    assert refused.code == "data_unreachable" and "redirects" in refused.message


def test_a_download_is_bounded_in_bytes(tmp_path: Path) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(10_000):
                handler.wfile.write(b"x" * 65_536)
                sent += 65_536
        except OSError:
            pass

    assert _refusal(tmp_path, endless, max_file_bytes=200_000).code == "file_too_large"
    assert sent < 64 << 20


def test_a_download_is_bounded_in_time(tmp_path: Path) -> None:
    refused = _refusal(tmp_path, lambda handler: say(handler, 200, b"x"), download_seconds=-1.0)
    assert refused.code == "data_unreachable" and "longer than" in refused.message


def test_a_connection_that_is_made_when_nobody_waits_any_more_is_closed(tmp_path: Path) -> None:
    transfer = _Transfer(1, lambda url: None, "data", "http://127.0.0.1/", tmp_path / "x")
    transfer._abandoned = True
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(httpx2.ReadError, match="given up"):
        transfer._connected("connection.connect_tcp.complete", {"return_value": ours})
    assert ours.fileno() == -1


@contextmanager
def raw(*pieces: bytes) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A loopback server that sends the pieces, holds the connection, and never ends its answer: its URL, an
    event once the last piece was sent, and one once the other side is gone."""
    sent, gone = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            accepted.append(connection)
            with connection:
                connection.settimeout(300)
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                sent.set()
                while connection.recv(65536):
                    pass
        gone.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent, gone
    finally:
        listener.close()
        for connection in accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(300)


STALLED: dict[str, tuple[bytes, ...]] = {
    "no byte": (),
    "half a status line": (b"HTTP/1.1 2",),
    "headers that drip": (b"HTTP/1.1 200 OK\r\n", b"X-One: 1\r\n", b"X-Two: "),
    "headers of a redirect that drip": (b"HTTP/1.1 302 Found\r\n", b"Location: /a"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"text"),
}


@pytest.mark.parametrize("pieces", STALLED.values(), ids=STALLED)
@pytest.mark.parametrize("ends", ["cancelled", "too late"])
def test_a_download_that_stalls_anywhere_ends(tmp_path: Path, pieces: tuple[bytes, ...], ends: str) -> None:
    """The download is cancelled, or its time is over, while what it waits for has not come. The connection is
    cut, so that its thread ends too."""
    with raw(*pieces) as (url, sent, gone):

        def interrupt() -> None:
            if ends == "cancelled" and sent.is_set():
                raise KeyError("cancelled")

        def clock() -> float:
            return 1000.0 if ends == "too late" and sent.is_set() else 0.0

        target = tmp_path / "downloads" / "x.csv"
        with pytest.raises(KeyError if ends == "cancelled" else InvalidInputError) as caught:
            fetched(f"{url}/x.csv", target, interrupt, clock=clock)
        assert ends == "cancelled" or "took longer than 600 seconds" in str(caught.value)
        assert gone.wait(300), "the connection is cut"
    assert not list(target.parent.iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name == "chorus-download"]


def test_the_control_of_stalling_does_not_end(tmp_path: Path) -> None:
    """A client that looks at nothing between two bytes still waits when the test's patience is over."""
    with raw(*STALLED["headers that drip"]) as (url, sent, _):
        ended = threading.Event()

        def careless() -> None:
            with suppress(httpx2.HTTPError), httpx2.Client(timeout=60) as client:
                client.get(f"{url}/x.csv")
            ended.set()

        threading.Thread(target=careless, daemon=True).start()
        assert sent.wait(300) and not ended.wait(0.5)


def test_a_name_that_does_not_resolve_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver cannot be asked to stop; the job does not wait for it, and nothing is written
    when it answers in the end."""
    asked, answer = threading.Event(), threading.Event()

    def resolver(*_: Any, **__: Any) -> Any:
        asked.set()
        assert answer.wait(300)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    def interrupt() -> None:
        if asked.is_set():
            raise KeyError("cancelled")

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr("chorus_server.jobs.download._END_SECONDS", 0.0)
    before = set(threading.enumerate())
    with pytest.raises(KeyError):
        fetched("http://data.invalid/x.csv", tmp_path / "downloads" / "x.csv", interrupt)
    downloads = [thread for thread in threading.enumerate() if thread.name == "chorus-download"]
    left = [thread for thread in downloads if thread not in before]
    assert len(left) == 1, "control: its thread still waits for the name"
    answer.set()
    left[0].join(300)
    assert not left[0].is_alive() and not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize(
    "location", ["/data/a\tb", "http://[", "//[", "http://host:x/data/", "http://" + "a" * 70 + "/", "/\xe4"]
)
def test_a_redirect_to_no_url_is_a_sentence(tmp_path: Path, location: str) -> None:
    refused = _refusal(tmp_path, lambda handler: say(handler, 302, Location=location))
    assert refused.code in ("data_unreachable", "data_not_allowed")


def test_a_host_that_no_socket_takes_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        fetched(f"http://{'a' * 70}.example/x.csv", tmp_path / "x.csv", lambda: None)
    assert caught.value.code == "data_unreachable"


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_of_the_server_is_told(tmp_path: Path, status: int) -> None:
    assert str(status) in _refusal(tmp_path, lambda handler: say(handler, status)).message


def test_a_download_can_be_interrupted(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyError("cancelled")

    with web(lambda handler: say(handler, 200, b"x")) as url:
        made = opened(tmp_path, data_urls=(url,), interrupt=interrupt)
        with pytest.raises(KeyError):
            source_file(made, DataSource(url=f"{url}/x.csv"), "data.train").__enter__()
    assert not list(made.folder.rglob("*.partial"))
