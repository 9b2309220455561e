"""Jobs followed over lines that break: nothing is lost or told twice, and patience has an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from chorus import AsyncClient, Client, errors
from chorus.following import LONGEST_WAIT_SECONDS, Following
from chorus.types import JobEvent
from tests.clients.fake_tuning import happened, refuse, sent


def part(*numbers: int) -> bytes:
    """Events of these numbers, as they are sent."""
    return b"".join(sent(happened(number, "step", {"step": number})) for number in numbers)


def done(status: str = "succeeded") -> bytes:
    return f"event: done\ndata: {json.dumps({'id': 'job-1', 'status': status})}\n\n".encode()


class Line:
    """A transport that answers each connection with the next part of a script."""

    def __init__(self, *parts: bytes | httpx2.Response | Exception) -> None:
        self.parts = list(parts)
        self.after: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.after.append(request.url.params.get("after"))
        part = self.parts.pop(0)
        if isinstance(part, Exception):
            raise part
        if isinstance(part, httpx2.Response):
            return part
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=part)


def follow(line: Line, waits: list[float], **options: Any) -> list[JobEvent]:
    client = Client(transport=httpx2.MockTransport(line), sleep=waits.append)
    with client, client.tuning.events("job-1", **options) as events:
        found = list(events)
        assert events.done is not None and events.done.status == "succeeded"
    return found


LOST = refuse(503, "store_unavailable", "The database is locked.").content

BREAKS: dict[str, Callable[[], bytes | httpx2.Response | Exception]] = {
    "cut": lambda: part(1, 2) + part(3)[:-9],
    "cut at an event's end": lambda: part(1, 2),
    "no connection": lambda: httpx2.ConnectError("refused"),
    "reset": lambda: httpx2.ReadError("reset"),
    "silence": lambda: httpx2.ReadTimeout("nothing came"),
    "a server that starts": lambda: refuse(503, "not_ready", "The server is starting."),
    "a lost store": lambda: part(1) + b"event: error\ndata: " + LOST + b"\n\n",
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_line_is_taken_up_again_and_nothing_is_lost_or_told_twice(what: str) -> None:
    waits: list[float] = []
    line = Line(BREAKS[what](), part(1, 2, 3), part(3, 4) + done())
    assert [event.seq for event in follow(line, waits)] == [1, 2, 3, 4]
    assert line.after[0] is None and line.after[-1] == "3"
    assert len(waits) == 2 and all(0 < wait <= LONGEST_WAIT_SECONDS for wait in waits)


def test_an_awaiting_client_takes_it_up_again_too() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def read() -> list[int]:
        line = httpx2.MockTransport(Line(part(1), part(2), done()))
        async with (
            AsyncClient(transport=line, sleep=sleep) as client,
            client.tuning.events("job-1") as events,
        ):
            found = [event.seq async for event in events]
            assert events.done is not None
            return found

    assert asyncio.run(read()) == [1, 2]
    assert len(waits) == 2


@pytest.mark.parametrize("error", [
    refuse(404, "unknown_job", "There is none."), refuse(401, "unauthenticated", "No key."),
    httpx2.Response(200, content=b"event: step\ndata: nonsense\n\n"),
])  # fmt: skip
def test_what_will_not_pass_is_raised_at_once(error: httpx2.Response) -> None:
    waits: list[float] = []
    with pytest.raises((errors.ApiError, errors.UnexpectedAnswerError)):
        follow(Line(error), waits)
    assert waits == []


def test_patience_ends_and_each_event_gives_it_back() -> None:
    waits: list[float] = []
    gone = [httpx2.ConnectError("refused") for _ in range(100)]
    with pytest.raises(errors.ConnectionFailedError):
        follow(Line(*gone), waits, patience_seconds=30)
    assert 15 < sum(waits) <= 30
    waits.clear()
    stretches = [each for number in range(1, 9) for each in (*gone[:2], part(number))]
    assert len(follow(Line(*stretches, *gone[:2], done()), waits, patience_seconds=6)) == 8
    assert sum(waits) > 6


def test_a_quiet_line_that_is_cut_now_and_then_costs_no_patience() -> None:
    waits: list[float] = []
    follow(Line(*[b": keep-alive\n\n"] * 40, done()), waits, patience_seconds=6)
    assert len(waits) == 40 and max(waits) <= 0.5
    waits.clear()
    with pytest.raises(errors.ConnectionLostError):  # the control: one that is cut before it says anything
        follow(Line(*[b""] * 40, done()), waits, patience_seconds=6)


def test_a_server_that_names_a_time_is_not_asked_before() -> None:
    busy = httpx2.Response(429, headers={"retry-after": "7"}, json=json.loads(
        refuse(429, "quota_exceeded", "Too many follow.").content))  # fmt: skip
    waits: list[float] = []
    follow(Line(busy, done()), waits)
    assert waits == [7.0]


def test_the_waits_grow_and_are_spread() -> None:
    following = Following("/x", patience_seconds=1e9, uniform=lambda: 0.0)
    error = errors.ConnectionFailedError("gone")
    low = [following.pause_after(error) for _ in range(8)]
    following = Following("/x", patience_seconds=1e9, uniform=lambda: 1.0)
    high = [following.pause_after(error) for _ in range(8)]
    assert high == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert low == [wait / 2 for wait in high]


def test_leaving_early_closes_the_connection() -> None:
    closed: list[bool] = []

    class Endless(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield part(1)
            yield part(2)
            raise AssertionError("nobody reads this far")

        def close(self) -> None:
            closed.append(True)

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, stream=Endless()))
    with Client(transport=transport) as client, client.tuning.events("job-1") as events:
        assert next(events).seq == 1
        assert closed == []
    assert closed == [True]
