"""What SIGTERM does to a server under fifty clients of every kind, seen from the clients and the journal.

    PYTHONPATH=scripts python -m tests.end_to_end.drained --times 50

starts a server and ends it, as often as told, and makes one table.

Half of the clients ask without pause, plainly or streamed. The others do what holds a server up: half a head,
half a body, half an upload, a follower, a follower that does not read.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from prompts_store.store import PromptStore
from tests.end_to_end.served import Served
from tests.places import ROOT

CLIENTS = 50
FEW_PROGRAMS = {"shapes": "input_lengths=64 batch_rows=1,8 blocks=64x16x16 score_buckets=4x16"}
DRAIN_SECONDS = 4.0
GUARD_SECONDS = 120.0
REFUSED = (503, "shutting_down")
_PATIENT = """
from functools import partial
from chorus_server import process
process.LAST_SECONDS, process.TELL_SECONDS = 60.0, 2.0
process.ConnectionLimits = partial(process.ConnectionLimits, stall_seconds=600.0)
from chorus_server.cli import serve
serve()
"""
_JSON = {"Content-Type": "application/json"}


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        outcomes: of engine requests by id, as the answers tell it: `ok` or an error's code.
        told: how a request that could not end was answered, by kind of client: status and code.
        refused: requests that came after the signal and were refused.
        ready_after: answers of `/readyz` after the first refusal that were not 503.
        strange: anything else, which there must not be.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    told: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    refused: int = 0
    ready_after: int = 0
    strange: list[str] = field(default_factory=list)


class Clients:
    """Fifty of them, each on a thread of its own, until the server lets them go."""

    def __init__(self, port: int, job: str) -> None:
        self.seen = Seen()
        self._port = port
        self._job = job
        self._lock = threading.Lock()
        self._begun = threading.Semaphore(0)
        self._over = threading.Event()
        kinds: list[Callable[[], None]] = [
            self._plain, self._streamed, self._plain, self._streamed, self._half_body, self._half_upload,
            self._half_file, self._follower, self._stalled, self._half_head,
        ]  # fmt: skip
        self._threads = [
            threading.Thread(target=self._run, args=(kind,), daemon=True)
            for kind in kinds
            for _ in range(CLIENTS // len(kinds))
        ]

    def start(self) -> None:
        """Returns once the server has each request or its half. Half a head comes last, when the others are
        there, because it has ten seconds and the server gives no sign of it."""
        first = len(self._threads) - CLIENTS // 10
        for threads in (self._threads[:first], self._threads[first:]):
            for thread in threads:
                thread.start()
            for _ in threads:
                assert self._begun.acquire(timeout=GUARD_SECONDS), self.seen.strange

    def finish(self) -> Seen:
        """The server has ended: what they saw."""
        self._over.set()
        for thread in self._threads:
            thread.join(GUARD_SECONDS)
            assert not thread.is_alive()
        return self.seen

    def _run(self, client: Callable[[], None]) -> None:
        try:
            client()
        except Exception as error:  # a client's failure is the server's, or the test's
            self._strange(f"{client.__name__}: {type(error).__name__}: {error}")
            self._begun.release()

    def _strange(self, text: str) -> None:
        with self._lock:
            self.seen.strange.append(text)

    # Those that ask without pause.

    def _plain(self) -> None:
        self._ask(stream=False)

    def _streamed(self) -> None:
        self._ask(stream=True)

    def _ask(self, stream: bool) -> None:
        line = HTTPConnection("127.0.0.1", self._port, timeout=GUARD_SECONDS)
        body = {"task": None, "inputs": ["good film", "a cat ran"], "max_new_tokens": 8, "stream": stream}
        first = True
        while True:
            try:
                line.request("POST", "/v1/generate", json.dumps(body), _JSON)
                answer = line.getresponse()
                text = answer.read().decode()
            except (OSError, HTTPException):  # the sockets are closed: the journal knows what was accepted
                break
            finally:
                if first:
                    self._begun.release()
                    first = False
            if answer.status != 200 and self._is_refused(answer.status, text):
                self._refused()
                break
            self._note(answer, text, stream)
        line.close()

    def _note(self, answer: HTTPResponse, text: str, stream: bool) -> None:
        request = answer.headers["x-request-id"]
        if answer.status != 200:
            self._strange(f"{answer.status}: {text}")
            return
        found = _streamed_outcomes(text) if stream else _outcomes(json.loads(text)["results"])
        with self._lock:
            self.seen.outcomes |= {f"{request}.{index}": outcome for index, outcome in found.items()}

    @staticmethod
    def _is_refused(status: int, text: str) -> bool:
        return (status, json.loads(text)["error"]["code"]) == REFUSED

    def _refused(self) -> None:
        """Readiness went down before."""
        ready = 503
        with suppress(OSError, HTTPException):  # closed by now
            line = HTTPConnection("127.0.0.1", self._port, timeout=GUARD_SECONDS)
            line.request("GET", "/readyz")
            ready = line.getresponse().status
            line.close()
        with self._lock:
            self.seen.refused += 1
            self.seen.ready_after += ready != 503

    # Those that hold a server up.

    def _half_head(self) -> None:
        head = b"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Ty"
        self._wait("half a head", head, told=False)

    def _half_body(self) -> None:
        self._wait("half a body", _head("/v1/generate", "application/json") + b'{"task": null, ')

    def _half_upload(self) -> None:
        self._wait("half an upload", _head("/v1/tasks/t/versions", "application/octet-stream") + bytes(100))

    def _half_file(self) -> None:
        self._wait("half a file", _head("/v1/files?name=a.tsv", "application/octet-stream") + bytes(100))

    def _follower(self) -> None:
        self._wait("a follower", self._follow())

    def _stalled(self) -> None:
        self._wait("a reader that stalls", self._follow(), reads=False)

    def _follow(self) -> bytes:
        return f"GET /v1/tuning/jobs/{self._job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def _wait(self, kind: str, sent: bytes, *, reads: bool = True, told: bool = True) -> None:
        """Send this, and wait for what comes of it.

        Args:
            told: whether something comes at once: a follower's first events, or `100 Continue`.
        """
        with socket.socket() as client:
            client.settimeout(GUARD_SECONDS)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            client.connect(("127.0.0.1", self._port))
            client.sendall(sent)
            if told:
                client.recv(1, socket.MSG_PEEK)
            self._begun.release()
            if not reads:
                self._over.wait()
            answer = _told(client)
        with self._lock:
            self.seen.told[kind, *answer] += 1


def _head(path: str, kind: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode()


def _told(client: socket.socket) -> tuple[int, str]:
    """Status and code of an answer, or of the last event of a stream; 0 and `closed` where none came."""
    try:
        with HTTPResponse(client) as answer:
            answer.begin()
            status, text = answer.status, answer.read().decode()
    except (OSError, HTTPException):
        return 0, "closed"
    if status != 200:
        return status, str(json.loads(text)["error"]["code"])
    events = _events(text)
    return status, str(events[-1][1]["error"]["code"]) if events[-1][0] == "error" else events[-1][0]


def _events(text: str) -> list[tuple[str, Any]]:
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        for block in text.split("\n\n")
    ]
    return [(block["event"], json.loads(block["data"])) for block in blocks if "event" in block]


def _outcomes(results: list[dict[str, Any]]) -> dict[int, str]:
    return {i: result["error"]["code"] if "error" in result else "ok" for i, result in enumerate(results)}


def _streamed_outcomes(text: str) -> dict[int, str]:
    events = _events(text)
    errors = {data["index"]: data["error"]["code"] for name, data in events if name == "error"}
    return errors | {data["index"]: "ok" for name, data in events if name == "result"}


@dataclass(frozen=True)
class Ended:
    """What one end of a server was.

    Attributes:
        accepted, outcomes: from the journal; each id has one outcome.
        unanswered: accepted requests whose outcome no client was told.
        seconds: from the signal to the end of the process.
    """

    code: int
    accepted: set[str]
    outcomes: dict[str, str]
    unanswered: set[str]
    seconds: float
    seen: Seen

    @property
    def sound(self) -> bool:
        """Whether it went as it must."""
        seen, told = self.seen, self.seen.told
        halves = sum(told[kind, *REFUSED] for kind in ("half a body", "half an upload", "half a file"))
        return (
            self.code == 0
            and len(self.accepted) > 0
            and self.outcomes.keys() == self.accepted
            and not self.unanswered
            and not seen.strange
            and not seen.ready_after
            and seen.refused > 0
            and halves == 3 * CLIENTS // 10
            and told["a follower", 200, "shutting_down"] == CLIENTS // 10
            # On a busy machine the ten seconds of a head may be over first.
            and told["half a head", 0, "closed"] + told["half a head", 408, "request_timeout"]
            == CLIENTS // 10
        )


def patient(first: str = "") -> dict[str, Any]:
    """Options of a server that gives up unfinished requests as soon as one with `DRAIN_SECONDS`, and has more
    time to tell their clients and to end: on a busy machine the last three seconds are few.

    Args:
        first: Python that it runs before.
    """
    return {"command": [sys.executable, "-c", first + _PATIENT], "drain_seconds": 61.0}


@contextmanager
def served_clients(data_dir: Path, **options: Any) -> Iterator[tuple[Served, Clients]]:
    """A server with a job to be followed, and the clients at work."""
    options = {"drain_seconds": DRAIN_SECONDS, "journal_file": data_dir / "journal"} | options
    with Served(data_dir, **options) as server:
        server.wait_ready()
        port = server.http.base_url.port
        assert port is not None
        clients = Clients(port, long_job(data_dir))
        clients.start()
        yield server, clients


def long_job(data_dir: Path) -> str:
    """A job of another base, so that nobody runs it, with more events than a connection's buffers hold."""
    store = PromptStore.open(data_dir)
    job = store.create_job("default", "tuning", {"base_fingerprint": "f" * 64})
    claimed = store.claim_job("tuning", "nobody", 3600, "f" * 64)
    assert claimed is not None
    for _ in range(10):
        store.append_events(claimed[1], [("step", {"text": "x" * 60_000})] * 10)
    store.close()
    return job.id


def end(server: Served, clients: Clients, data_dir: Path, sig: signal.Signals = signal.SIGTERM) -> Ended:
    """Send the signal, and gather what came of it."""
    started = time.monotonic()
    code = server.stop(sig, GUARD_SECONDS)
    seconds = time.monotonic() - started
    seen = clients.finish()
    lines = [json.loads(line) for line in (data_dir / "journal").read_text().splitlines()]
    accepted = [line["id"] for line in lines if line["event"] == "accepted"]
    outcomes = [(line["id"], line["outcome"]) for line in lines if line["event"] == "outcome"]
    assert len(set(accepted)) == len(accepted) and len(dict(outcomes)) == len(outcomes)
    known = dict(outcomes)
    # The engine's ids end in a token of their own; clients know the request's id and the item's place.
    unanswered = {
        name for name in accepted if seen.outcomes.get(name.rsplit(".", 1)[0], "not told") != known.get(name)
    }
    return Ended(code, set(accepted), known, unanswered, seconds, seen)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--model", default=str(ROOT / "base_model" / "model"))
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS)
    given = parser.parse_args()
    ends: list[Ended] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(given.times):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            sig = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)[number % 3]
            own = {"model": given.model, "drain_seconds": given.drain_seconds}
            own |= {"compile_cache_dir": Path(scratch) / "cache"} | FEW_PROGRAMS
            with served_clients(folder, **own) as (server, clients):
                ended = end(server, clients, folder, sig)
            ends.append(ended)
            line = (
                f"{number + 1:3} {sig.name:8} exit {ended.code}, {len(ended.accepted)} accepted, "
                f"{len(ended.unanswered)} unanswered, {ended.seen.refused} refused, {ended.seconds:.2f} s, "
                f"{'sound' if ended.sound else 'NOT SOUND'}\n"
            )
            sys.stdout.write(line)
            if not ended.sound:
                sys.stdout.write(f"    {ended.seen.told} {ended.seen.strange[:3]}\n")
            sys.stdout.flush()
    sound = sum(ended.sound for ended in ends)
    sys.stdout.write(
        f"{sound} of {len(ends)} sound; {sum(len(e.accepted) for e in ends)} accepted, "
        f"{sum(len(e.unanswered) for e in ends)} unanswered; longest {max(e.seconds for e in ends):.2f} s "
        f"of {given.drain_seconds:g} s\n"
    )
    return 0 if sound == len(ends) else 1


if __name__ == "__main__":
    sys.exit(main())
