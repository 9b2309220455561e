"""When a client tries again, how long it waits, and how a budget stops it."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus import AsyncClient, Client, RetryPolicy, errors
from chorus.retries import Attempts, RetryBudget, parse_retry_after
from tests.clients.fake_chorus import refuse

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Script:
    """Answers one after the other; keeps what was asked and how long the client slept."""

    def __init__(self, *answers: httpx2.Response | httpx2.TransportError) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.slept: list[float] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, httpx2.TransportError):
            raise answer
        return answer

    def client(self, retries: int | RetryPolicy = 3) -> Client:
        return Client(
            transport=httpx2.MockTransport(self), retries=retries, sleep=self.slept.append, clock=lambda: 0.0
        )


def ok() -> httpx2.Response:
    return httpx2.Response(200, json={"status": "ok"})


def overloaded(retry_after: str | None = None) -> httpx2.Response:
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    return refuse(503, "overloaded", "The queue is full.", None, **headers)


def test_retry_after_is_waited_for_and_a_little_more() -> None:
    script = Script(overloaded("4"), refuse(429, "quota_exceeded", "Wait.", None, Retry_After="2"), ok())
    with script.client() as client:
        assert client.health().status == "ok"
    first, second = script.slept
    assert 4.0 <= first <= 4.4
    assert 2.0 <= second <= 2.2
    assert client.statistics.retries == 2


def test_without_retry_after_the_wait_doubles_with_jitter() -> None:
    policy = RetryPolicy(retries=4, first_wait_seconds=1.0, budget_reserve=100)
    waits = [[Attempts(policy, RetryBudget(policy), lambda at=at: at)._wait(None)] for at in (0.0, 0.5, 1.0)]
    assert waits == [[0.0], [0.5], [1.0]]
    script = Script(*[overloaded() for _ in range(4)], ok())
    with script.client(policy) as client:
        client.health()
    assert all(wait <= bound for wait, bound in zip(script.slept, (1, 2, 4, 8), strict=True))
    assert len(set(script.slept)) == 4


def test_retries_end() -> None:
    script = Script(*[overloaded("0") for _ in range(5)])
    with script.client(2) as client, pytest.raises(errors.OverloadedError):
        client.health()
    assert script.asked == 3


def test_zero_retries_is_one_attempt() -> None:
    script = Script(overloaded("0"), ok())
    with script.client(0) as client, pytest.raises(errors.OverloadedError):
        client.health()
    assert script.asked == 1


def test_a_long_wait_is_the_callers_decision() -> None:
    script = Script(overloaded("3600"))
    with script.client() as client, pytest.raises(errors.OverloadedError) as raised:
        client.health()
    assert raised.value.retry_after_seconds == 3600
    assert script.slept == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 499, 500, 502, 504])
def test_other_statuses_are_not_tried_again(status: int) -> None:
    script = Script(refuse(status, "whatever", "No.", None, Retry_After="0"))
    with script.client() as client, pytest.raises(errors.ChorusError):
        client.health()
    assert script.asked == 1


@pytest.mark.parametrize(
    ("failure", "repeatable", "asked"),
    [
        (httpx2.ConnectError("refused"), False, 2),
        (httpx2.ConnectError("refused"), True, 2),
        (httpx2.ConnectTimeout("slow"), False, 2),
        (httpx2.ReadError("reset"), False, 1),
        (httpx2.ReadError("reset"), True, 2),
        (httpx2.RemoteProtocolError("closed"), False, 1),
        (httpx2.RemoteProtocolError("closed"), True, 2),
        (httpx2.ReadTimeout("slow"), True, 1),
    ],
)
def test_what_may_have_been_done_is_not_done_twice(
    failure: httpx2.TransportError, repeatable: bool, asked: int
) -> None:
    """A rollback moves an alias again each time; an upload is addressed by its content."""
    moved = httpx2.Response(200, json={"alias": "live", "version": 1, "previous": 2})
    uploaded = {
        "task": "default/a",
        "version": 1,
        "digest": "d",
        "manifest_digest": "d",
        "length": 1,
        "width": 1,
    }
    script = Script(failure, httpx2.Response(201, json={**uploaded, "created_at": "2026-01-01T00:00:00Z"}))
    if not repeatable:
        script.answers[1] = moved
    with script.client() as client:
        try:
            client.tasks.push("a", b"x") if repeatable else client.tasks.rollback("a")
        except errors.ChorusError:
            assert asked == 1
    assert script.asked == asked


def test_readiness_is_asked_once() -> None:
    script = Script(httpx2.Response(503, json={"status": "draining"}, headers={"retry-after": "1"}))
    with script.client() as client:
        assert client.ready().status == "draining"
    assert script.asked == 1


def test_streams_are_opened_again() -> None:
    stream = httpx2.Response(200, content=b'event: done\ndata: {"id": "r"}\n\n')
    script = Script(overloaded("1"), stream)
    with script.client() as client, client.stream(input="x") as events:
        assert [event.id for event in events if hasattr(event, "id")] == ["r"]
    assert script.asked == 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Thu, 01 Jan 2026 00:01:00 +0000", 60.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("Thu, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_header(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


@given(st.text(max_size=40))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_no_retry_after_header_breaks_the_client(header: str) -> None:
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or seconds >= 0


def retried_share(policy: RetryPolicy, requests: int, per_second: float, seed: int) -> float:
    """Retries per request of a client whose server refuses everything."""
    now = [0.0]
    budget = RetryBudget(policy, lambda: now[0])
    uniform = random.Random(seed).random
    for _ in range(requests):
        attempts = Attempts(policy, budget, uniform)
        error = errors.OverloadedError("full", code="overloaded", retry_after_seconds=0.0)
        for _ in range(policy.retries + 1):
            try:
                attempts.pause_after(error, again=True)
            except errors.OverloadedError:
                break
        now[0] += 1.0 / per_second
    statistics = budget.statistics
    assert statistics.requests == requests
    return statistics.retries / requests


@given(st.integers(100, 2000), st.floats(2.0, 10_000.0), st.integers(0, 10), st.integers(0, 100))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_retries_stay_under_a_fifth_in_overload(
    requests: int, per_second: float, retries: int, seed: int
) -> None:
    assert retried_share(RetryPolicy(retries=retries), requests, per_second, seed) < 0.2


def test_without_a_budget_they_would_not() -> None:
    """The control of the test above."""
    unbounded = RetryPolicy(budget_reserve=1e9)
    assert retried_share(unbounded, 500, 100.0, 0) == 3.0


def test_a_client_that_asks_seldom_may_retry_again_later() -> None:
    now = [0.0]
    policy = RetryPolicy(retries=9)
    budget = RetryBudget(policy, lambda: now[0])
    while budget.take():
        pass
    now[0] += 1.0 / policy.budget_per_second
    assert budget.take()
    assert not budget.take()
    now[0] += 1e6
    assert sum(budget.take() for _ in range(100)) == policy.budget_reserve


def test_threads_share_a_budget() -> None:
    policy = replace(RetryPolicy(), budget_reserve=50.0)
    budget = RetryBudget(policy, lambda: 0.0)
    granted: list[int] = []
    threads = [
        threading.Thread(target=lambda: granted.append(sum(budget.take() for _ in range(50))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 50 == budget.statistics.retries
    assert budget.statistics.refused_by_budget == 350


def test_the_async_client_retries_alike() -> None:
    script = Script(overloaded("4"), httpx2.ConnectError("refused"), ok())

    async def sleep(seconds: float) -> None:
        script.slept.append(seconds)

    async def ask() -> None:
        async with AsyncClient(transport=httpx2.MockTransport(script), sleep=sleep) as client:
            assert (await client.health()).status == "ok"
            assert client.statistics.retries == 2

    asyncio.run(ask())
    assert 4.0 <= script.slept[0] <= 4.4


@contextmanager
def hangs_up(times: int) -> Iterator[tuple[str, list[bytes]]]:
    """A real server that reads a request and closes, `times` times, then answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(300)
    requests: list[bytes] = []

    def serve() -> None:
        for turn in range(times + 1):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(300)
                requests.append(connection.recv(65536))
                if turn == times:
                    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"status": "ok"}')

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        listener.close()
        thread.join(timeout=300)


def test_a_server_that_hangs_up_is_asked_again_for_what_may_be_repeated() -> None:
    slept: list[float] = []
    with hangs_up(2) as (url, requests), Client(url, sleep=slept.append) as client:
        assert client.health().status == "ok"
    assert len(requests) == 3
    assert len(slept) == 2


def test_a_server_that_hangs_up_is_not_asked_to_generate_twice() -> None:
    with hangs_up(0) as (url, requests), Client(url) as client:
        client.health()
    assert len(requests) == 1
    with hangs_up(1) as (url, requests), Client(url) as client:
        with pytest.raises(errors.ConnectionLostError):
            client.generate(input="x")
        assert len(requests) == 1
        client.health()


GENERATED = {"id": "r", "results": []}


@pytest.mark.parametrize("failure", [httpx2.ReadError("reset"), httpx2.Response(500, text="Server Error")])
@pytest.mark.parametrize("repeat", [True, False])
def test_inference_is_asked_again_only_if_the_policy_says_so(
    failure: httpx2.TransportError | httpx2.Response, repeat: bool
) -> None:
    """Where a proxy says in its own words that the server failed, the connection behind it broke."""
    script = Script(failure, httpx2.Response(200, json=GENERATED))
    with script.client(RetryPolicy(repeat_inference=repeat)) as client:
        try:
            assert client.generate(input="x").id == "r"
        except (errors.ConnectionLostError, errors.UnexpectedAnswerError):
            assert not repeat
    assert script.asked == 1 + repeat


def test_what_may_be_repeated_is_asked_again_where_a_proxy_lost_the_server() -> None:
    script = Script(httpx2.Response(502, text="Bad Gateway"), ok())
    with script.client() as client:
        assert client.health().status == "ok"
    assert script.asked == 2


def test_nobody_listens() -> None:
    slept: list[float] = []
    with socket.socket() as taken:  # and no other process gets its port meanwhile
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        refused = pytest.raises(errors.ConnectionFailedError, match=f"127.0.0.1:{port}")
        with Client(f"http://127.0.0.1:{port}", sleep=slept.append) as client, refused:
            client.generate(input="x")
    assert len(slept) == 3
