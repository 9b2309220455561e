"""Followed jobs: order, coming back, silence, the end, leaving, bounds. A test's clock ticks the polls."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.jobs import feeds
from chorus_server.jobs.feeds import FAILURES, KEPT_EVENTS, PAGE_EVENTS, FeedLimits
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.errors import StoreError
from prompts_store.jobs.records import Lease
from tests.server.api.api_harness import FINGERPRINT, ApiServer, error_of, eventually


class Clock:
    """Time between polls passes when a test says so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def __call__(self, seconds: float) -> None:
        over = asyncio.Event()
        with self._lock:
            self._waiting.append((asyncio.get_running_loop(), over))
        await over.wait()

    def until_asleep(self) -> None:
        """Wait for the end of the poll that is under way: nothing is read until the next tick."""
        eventually(lambda: bool(self._waiting))

    def tick(self) -> None:
        """One poll of every followed job; returns once each of them has been asked for."""
        self.until_asleep()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for loop, over in waiting:
            loop.call_soon_threadsafe(over.set)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(tmp_path: Path, vocabulary: Vocabulary, clock: Clock) -> Iterator[ApiServer]:
    limits = FeedLimits(followers=3, followers_per_tenant=2)
    with ApiServer(tmp_path, vocabulary, pause=clock, feed_limits=limits) as server:
        yield server
        eventually(lambda: server.services.feeds.followers == 0 == server.services.feeds.polled)


@pytest.fixture
def job(api: ApiServer) -> str:
    return api.store.create_job("default", "tuning", {"base_fingerprint": FINGERPRINT}).id


def claim(api: ApiServer) -> Lease:
    found = api.store.claim_job("tuning", "a runner", 600, FINGERPRINT)
    assert found is not None
    return found[1]


class Following:
    """One connection that follows a job; blocks are read one at a time."""

    def __init__(self, response: httpx2.Response) -> None:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        self._chunks = response.iter_text()
        self._text = ""

    def block(self) -> str | None:
        """The next event or comment as it was sent; None at the end."""
        while "\n\n" not in self._text:
            more = next(self._chunks, None)
            if more is None:
                assert not self._text
                return None
            self._text += more
        found, self._text = self._text.split("\n\n", 1)
        return found

    def event(self) -> tuple[int | None, str, dict[str, Any]]:
        """Id, name and data of the next event."""
        block = self.block()
        assert block is not None
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        return int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])


@contextmanager
def follow(api: ApiServer, job: str, *, last: int | None = None, **query: Any) -> Iterator[Following]:
    headers = {} if last is None else {"last-event-id": str(last)}
    with api.http.stream("GET", f"/v1/tuning/jobs/{job}/events", params=query, headers=headers) as response:
        yield Following(response)


def step(number: int) -> tuple[str, dict[str, Any]]:
    return "step", {"step": number, "losses": [0.5]}


def test_events_come_in_order_as_they_are_written_and_end_with_the_job(
    api: ApiServer, clock: Clock, job: str
) -> None:
    with follow(api, job) as following:
        assert following.event()[:2] == (1, "status")
        lease = claim(api)
        clock.tick()
        seq, name, data = following.event()
        assert (seq, name, data["kind"], data["data"]) == (
            2,
            "status",
            "status",
            {"status": "preparing"} | data["data"],
        )
        for number in range(3):
            api.store.append_events(lease, [step(number)])
            clock.tick()
            seq, name, data = following.event()
            assert (seq, name, data["seq"], data["data"]["step"]) == (3 + number, "step", 3 + number, number)
        # The feed may still be reading, and would end by itself where it saw the end.
        clock.until_asleep()
        api.store.finish_job(lease, "succeeded")
        clock.tick()
        assert following.event()[2]["data"]["status"] == "succeeded"
        assert following.event() == (None, "done", {"id": job, "status": "succeeded"})
        assert following.block() is None


def test_a_job_that_is_over_is_told_whole_without_a_tick(api: ApiServer, job: str) -> None:
    lease = claim(api)
    events = [step(number) for number in range(PAGE_EVENTS + KEPT_EVENTS)]
    api.store.append_events(lease, events)
    api.store.finish_job(lease, "failed", error={"code": "x", "message": "y"})
    with follow(api, job) as following:
        seen = [following.event() for _ in range(len(events) + 4)]
        assert [seq for seq, _, _ in seen] == [*range(1, len(events) + 4), None]
        assert seen[-1][1:] == ("done", {"id": job, "status": "failed"})
        assert following.block() is None


@pytest.mark.parametrize("how", [{"after": 2}, {"last": 2}, {"after": 2, "last": 1}])
def test_a_caller_comes_back_where_it_was(api: ApiServer, job: str, how: dict[str, int]) -> None:
    lease = claim(api)
    api.store.append_events(lease, [step(1), step(2)])
    api.store.finish_job(lease, "cancelled")
    with follow(api, job, **how) as following:
        assert [following.event()[0] for _ in range(4)] == [3, 4, 5, None]


def test_listing_takes_a_limit_and_needs_no_place(api: ApiServer, job: str) -> None:
    lease = claim(api)
    api.store.append_events(lease, [step(1), step(2)])
    query = {"follow": False, "after": 1, "limit": 2}
    listed = api.http.get(f"/v1/tuning/jobs/{job}/events", params=query).json()
    assert [event["seq"] for event in listed["events"]] == [2, 3]
    for bad in ({"after": -1}, {"after": "x"}, {"follow": "perhaps"}, {"follow": False, "limit": 501}):
        assert api.http.get(f"/v1/tuning/jobs/{job}/events", params=bad).status_code == 400
    answer = api.http.get(f"/v1/tuning/jobs/{job}/events", headers={"last-event-id": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_input")


def test_silence_is_broken_by_comments(api: ApiServer, clock: Clock, job: str) -> None:
    polls = api.services.feeds.limits.keep_alive_polls
    with follow(api, job) as following:
        assert following.event()[0] == 1
        for _ in range(polls):
            clock.tick()
        assert following.block() == ": keep-alive"
        claim(api)
        clock.tick()
        assert following.event()[0] == 2


def test_followers_of_a_job_share_one_poller(api: ApiServer, clock: Clock, job: str) -> None:
    reads: list[int] = []
    events = api.store.job_events
    api.store.job_events = lambda *args, **kwargs: (reads.append(1), events(*args, **kwargs))[1]  # type: ignore[method-assign]
    with follow(api, job) as one, follow(api, job) as two:
        assert one.event()[0] == two.event()[0] == 1
        eventually(lambda: api.services.feeds.followers == 2)
        lease = claim(api)
        clock.tick()
        assert one.event()[0] == two.event()[0] == 2
        assert api.services.feeds.polled == 1
        clock.until_asleep()
        reads.clear()
        for number in range(5):
            api.store.append_events(lease, [step(number)])
            clock.tick()
            assert one.event()[0] == two.event()[0] == 3 + number
        assert len(reads) == 5


def test_a_follower_that_fell_behind_what_is_kept_misses_nothing(
    api: ApiServer, clock: Clock, job: str
) -> None:
    with follow(api, job) as following:
        assert following.event()[0] == 1
        lease = claim(api)
        api.store.append_events(lease, [step(number) for number in range(KEPT_EVENTS + 20)])
        clock.tick()
        seen = [following.event()[0] for _ in range(KEPT_EVENTS + 21)]
        assert seen == list(range(2, KEPT_EVENTS + 23))


def test_leaving_frees_the_place_and_the_poller(api: ApiServer, job: str) -> None:
    with follow(api, job) as following:
        assert following.event()[0] == 1
        eventually(lambda: api.services.feeds.polled == 1)
        assert api.services.feeds.followers == 1
    eventually(lambda: api.services.feeds.polled == 0 == api.services.feeds.followers)


def test_followers_are_bounded_by_tenant(api: ApiServer, job: str) -> None:
    with follow(api, job) as one, follow(api, job) as two:
        assert one.event()[0] == two.event()[0] == 1
        refused = api.http.get(f"/v1/tuning/jobs/{job}/events")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
        assert int(refused.headers["retry-after"]) >= 1
        assert api.http.get(f"/v1/tuning/jobs/{job}/events?follow=false").status_code == 200
    eventually(lambda: api.services.feeds.followers == 0)
    with follow(api, job) as again:
        assert again.event()[0] == 1


def test_followers_are_bounded_in_all(api: ApiServer) -> None:
    places = [api.services.feeds.place(tenant) for tenant in ("a", "b", "c", "d")]
    for place in places[:3]:
        place.__enter__()
    with pytest.raises(feeds.OverloadedError), places[3]:
        pass
    for place in places[:3]:
        place.__exit__(None, None, None)
    with api.services.feeds.place("d"):
        assert api.services.feeds.followers == 1


def test_a_server_that_ends_lets_its_followers_go(api: ApiServer, clock: Clock, job: str) -> None:
    with follow(api, job) as following:
        assert following.event()[0] == 1
        clock.until_asleep()
        api.services.lifecycle.draining()
        clock.tick()
        seq, name, data = following.event()  # no `done`: the caller is to come back
        assert (seq, name, data["error"]["code"]) == (None, "error", "shutting_down")
        assert following.block() is None


def test_a_store_that_hiccups_is_asked_again(api: ApiServer, clock: Clock, job: str) -> None:
    read = api.store.get_job
    with follow(api, job) as following:
        assert following.event()[0] == 1
        clock.until_asleep()
        api.store.get_job = failing  # type: ignore[method-assign]
        for _ in range(FAILURES - 1):
            clock.tick()
        clock.until_asleep()
        api.store.get_job = read  # type: ignore[method-assign]
        claim(api)
        clock.tick()
        assert following.event()[0] == 2


def test_a_store_that_is_lost_ends_the_stream_with_an_error(api: ApiServer, clock: Clock, job: str) -> None:
    with follow(api, job) as following:
        assert following.event()[0] == 1
        clock.until_asleep()
        api.store.get_job = failing  # type: ignore[method-assign]
        for _ in range(FAILURES):
            clock.tick()
        seq, name, data = following.event()
        assert (seq, name, data["error"]["code"]) == (None, "error", "store_unavailable")
        assert following.block() is None


def failing(*args: Any, **kwargs: Any) -> Any:
    raise StoreError("The database is locked; try again.")


def test_a_job_that_is_resumed_is_followed_anew(api: ApiServer, clock: Clock, job: str) -> None:
    api.store.cancel_job("default", job)
    with follow(api, job) as following:
        assert [following.event()[1] for _ in range(3)] == ["status", "status", "done"]
    api.store.resume_job("default", job)
    with follow(api, job, after=2) as following:
        assert following.event()[2]["data"]["status"] == "queued"
        lease = claim(api)
        clock.tick()
        assert following.event()[2]["data"]["status"] == "preparing"
        clock.until_asleep()
        api.store.finish_job(lease, "succeeded")
        clock.tick()
        assert [following.event()[1] for _ in range(2)] == ["status", "done"]
