"""The load generator: what it sends is decided by the seed, what it reports is what happened."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus import AsyncClient, InvalidArgumentError, RetryPolicy
from chorus.load import LoadSpec, report_of, run_load
from chorus.load.connections import SpreadTransport
from chorus.load.inputs import SENTENCES, read_inputs
from chorus.load.outcomes import Outcome, Recorder
from chorus.load.report import percentile
from chorus.load.schedule import schedule
from chorus.retries import CallStatistics
from tests.clients.fake_chorus import FakeChorus, event, refuse

NO_CALLS = CallStatistics(0, 0, 0)


def spec_of(**changes: Any) -> LoadSpec:
    return LoadSpec(**{"tasks": (None,), "inputs": ("x",), **changes})


@given(st.integers(0, 2**32), st.floats(1.0, 1000.0), st.floats(0.1, 5.0), st.integers(1, 50))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_schedule_is_bounded_and_the_same_each_time(
    seed: int, rate: float, duration: float, requests: int
) -> None:
    spec = spec_of(
        tasks=("a", "b", None),
        inputs=SENTENCES,
        arrivals="open",
        rate_per_second=rate,
        duration_seconds=duration,
        requests=requests,
        seed=seed,
    )
    shots = list(schedule(spec))
    assert shots == list(schedule(spec))
    assert len(shots) <= requests
    assert all(0 <= a.at_seconds <= b.at_seconds < duration for a, b in itertools.pairwise(shots))


def test_open_arrivals_are_poisson() -> None:
    """Gaps are exponential: mean and standard deviation are both 1 / rate, and gaps know nothing of each
    other.
    """
    spec = spec_of(arrivals="open", rate_per_second=50.0, duration_seconds=400.0)
    gaps = [b.at_seconds - a.at_seconds for a, b in itertools.pairwise(schedule(spec))]
    assert len(gaps) == pytest.approx(20_000, rel=0.03)
    assert statistics.mean(gaps) == pytest.approx(0.02, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.02, rel=0.03)
    assert abs(statistics.correlation(gaps[:-1], gaps[1:])) < 0.03


def test_another_mix_does_not_move_the_arrivals() -> None:
    uniform, zipf = (
        list(schedule(spec_of(tasks=("a", "b"), arrivals="open", mix=mix, seed=3)))
        for mix in ("uniform", "zipf")
    )
    assert [shot.at_seconds for shot in uniform] == [shot.at_seconds for shot in zipf]
    assert [shot.task for shot in uniform] != [shot.task for shot in zipf]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_zipf_shares(exponent: float) -> None:
    tasks = tuple(f"t{k}" for k in range(1, 9))
    spec = spec_of(tasks=tasks, mix="zipf", zipf_exponent=exponent, requests=40_000, seed=1)
    counts = Counter(shot.task for shot in schedule(spec))
    total = sum(k**-exponent for k in range(1, 9))
    for k, task in enumerate(tasks, 1):
        assert counts[task] / 40_000 == pytest.approx(k**-exponent / total, rel=0.08)


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ()},
        {"inputs": ()},
        {"duration_seconds": 0},
        {"duration_seconds": 1e9},
        {"duration_seconds": math.nan},
        {"requests": 0},
        {"rate_per_second": math.inf},
        {"concurrency": 0},
        {"concurrency": 10**6},
        {"zipf_exponent": -1},
        {"drain_seconds": math.nan},
        {"settings": {"colour": 1}},
        {"settings": {"input": "x"}},
        {"settings": {"temperature": 1}, "route": "classify"},
    ],
)
def test_unbounded_or_odd_loads_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        spec_of(**changes)
    assert raised.value.field


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_percentiles_lie_between_and_grow(values: list[float], share: float) -> None:
    ascending = sorted(values)
    assert percentile(ascending, 0) == ascending[0] and percentile(ascending, 1) == ascending[-1]
    assert ascending[0] <= percentile(ascending, share) <= ascending[-1]
    assert percentile(ascending, share / 2) <= percentile(ascending, share)


def test_figures_of_a_report() -> None:
    recorder = Recorder(sent=104)
    for milliseconds in range(1, 101):
        first = milliseconds / 2000
        recorder.add(
            Outcome(milliseconds / 1000, None, first, output_tokens=2), elapsed_seconds=milliseconds / 50
        )
    recorder.add(Outcome(9.0, "overloaded"), 1.0)
    recorder.add(Outcome(9.0, "overloaded"), 1.0)
    recorder.add(Outcome(9.0, "timeout"), 1.0)
    report = report_of(
        spec_of(goal_ms=50.0), recorder, CallStatistics(requests=104, retries=7, refused_by_budget=1)
    )
    told = report.as_json()
    assert told["latency_ms"] == {"p50": 50.5, "p90": 90.1, "p99": 99.01, "mean": 50.5, "max": 100.0}
    assert told["first_token_ms"]["p50"] == 25.25
    assert (told["throughput_per_second"], told["goodput_per_second"]) == (50.0, 25.0)
    assert told["output_tokens_per_second"] == 100.0
    assert told["errors"] == {"overloaded": 2, "timeout": 1}
    assert (told["sent"], told["succeeded"], told["failed"], told["retries"]) == (104, 100, 3, 7)
    assert json.loads(json.dumps(told)) == told


def test_a_report_of_nothing() -> None:
    told = report_of(spec_of(), Recorder(), NO_CALLS).as_json()
    assert told["latency_ms"] is None and told["throughput_per_second"] == 0.0


def run(spec: LoadSpec, handler: Any, **options: Any) -> tuple[Recorder, CallStatistics]:
    recorder = Recorder()

    async def go() -> CallStatistics:
        async with AsyncClient(transport=httpx2.MockTransport(handler), **options) as client:
            await run_load(client, spec, recorder)
            return client.statistics

    return recorder, asyncio.run(go())


@pytest.mark.parametrize("arrivals", ["open", "closed"])
@pytest.mark.parametrize("route", ["generate", "stream", "classify"])
def test_every_request_has_one_outcome(fake: FakeChorus, arrivals: Any, route: Any) -> None:
    spec = spec_of(
        inputs=("fine", "good", "fail") if route != "classify" else ("fine",),
        arrivals=arrivals,
        route=route,
        requests=60,
        rate_per_second=5000.0,
    )
    recorder, _ = run(spec, fake)
    assert recorder.sent == len(recorder.outcomes) == len(fake.seen) == 60
    assert recorder.in_flight == 0
    failing = sum("fail" in request.content.decode() for request in fake.seen)
    assert dict(recorder.errors) == ({"internal": failing} if failing else {})
    answered = [outcome for outcome in recorder.outcomes if outcome.code is None]
    assert all((outcome.first_token_seconds is not None) is (route == "stream") for outcome in answered)
    if route != "classify":
        assert all(outcome.output_tokens == 3 for outcome in answered)


class Gate:
    """A server that answers nobody until it is opened, and counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.open = asyncio.Event()

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        return FakeChorus()(request)


async def until(condition: Any) -> None:
    async with asyncio.timeout(300):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("arrivals", ["open", "closed"])
def test_requests_in_flight_are_bounded(arrivals: Any) -> None:
    async def go() -> tuple[Recorder, int]:
        gate, recorder = Gate(), Recorder()
        spec = spec_of(arrivals=arrivals, concurrency=4, requests=20, rate_per_second=10_000.0)
        async with AsyncClient(transport=httpx2.MockTransport(gate)) as client:
            running = asyncio.create_task(run_load(client, spec, recorder))
            await until(lambda: gate.waiting == 4)
            assert recorder.in_flight == 4
            gate.open.set()
            await running
        return recorder, gate.most

    recorder, most = asyncio.run(go())
    assert most == 4
    assert len(recorder.outcomes) == 20 and not recorder.errors
    assert recorder.late == 0 if arrivals == "closed" else recorder.late > 0


@pytest.mark.parametrize("arrivals", ["open", "closed"])
def test_a_server_that_never_answers_does_not_hold_the_run(
    arrivals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> Recorder:
        gate, recorder, loop = Gate(), Recorder(), asyncio.get_running_loop()
        if arrivals == "closed":  # no time passes before all have asked
            began, honest = loop.time(), loop.time
            monkeypatch.setattr(loop, "time", lambda: honest() if gate.most == 3 else began)
        spec = spec_of(
            arrivals=arrivals,
            concurrency=3,
            rate_per_second=1000.0,
            duration_seconds=0.05,
            drain_seconds=0.05,
        )
        async with AsyncClient(transport=httpx2.MockTransport(gate)) as client, asyncio.timeout(300):
            await run_load(client, spec, recorder)
        return recorder

    recorder = asyncio.run(go())
    assert dict(recorder.errors) == {"unfinished": 3}
    assert recorder.in_flight == 0
    due = len(list(schedule(spec_of(arrivals="open", rate_per_second=1000.0, duration_seconds=0.05))))
    assert recorder.unsent == (due - 3 if arrivals == "open" else 0)


def test_a_cancelled_run_leaves_nothing_behind() -> None:
    async def go() -> tuple[int, int]:
        gate, recorder = Gate(), Recorder()
        async with AsyncClient(transport=httpx2.MockTransport(gate)) as client:
            spec = spec_of(arrivals="open", rate_per_second=10_000.0, requests=5)
            running = asyncio.create_task(run_load(client, spec, recorder))
            await until(lambda: gate.waiting == 5)
            running.cancel()
            await asyncio.wait({running})
            await until(lambda: gate.waiting == 0)
        return len(asyncio.all_tasks()), len(recorder.outcomes)

    assert asyncio.run(go()) == (1, 5)


def test_a_defect_is_not_an_outcome() -> None:
    def broken(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError("a defect of the test's server")

    for arrivals in ("open", "closed"):
        with pytest.raises(AssertionError, match="a defect"):
            run(spec_of(arrivals=arrivals, requests=3, rate_per_second=1000.0), broken)


def test_latency_counts_from_the_moment_a_request_was_due() -> None:
    """A server that stalls cannot hide the stall by slowing the generator down; control: closed arrivals
    hide it.
    """

    def worst_share(arrivals: Any) -> float:
        first = True

        async def stalls_once(request: httpx2.Request) -> httpx2.Response:
            nonlocal first
            if first:
                first = False
                await asyncio.sleep(0.5)
            return FakeChorus()(request)

        spec = spec_of(arrivals=arrivals, concurrency=1, requests=60, rate_per_second=300.0)
        recorder, _ = run(spec, stalls_once)
        return sum(outcome.seconds > 0.25 for outcome in recorder.outcomes) / 60

    assert worst_share("closed") <= 0.1
    assert worst_share("open") >= 0.5


def test_retries_stay_under_a_fifth_when_everything_is_refused() -> None:
    async def instantly(seconds: float) -> None:
        pass

    def refusing(request: httpx2.Request) -> httpx2.Response:
        return refuse(503, "overloaded", "The queue is full.", None, Retry_After="1")

    spec = spec_of(arrivals="open", rate_per_second=5000.0, requests=200)
    _, calls = run(spec, refusing, sleep=instantly)
    assert calls.requests == 200
    assert 0 < calls.retries < 40
    _, unbounded = run(spec, refusing, sleep=instantly, retries=RetryPolicy(budget_reserve=1e9))
    assert unbounded.retries == 600, "the control: without a budget every request is sent four times"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "one\n\n two \r\n", ("one", " two ")),
        ("a.jsonl", '"one"\n{"premise": "p"}\n', ("one", {"premise": "p"})),
    ],
)
def test_inputs_from_a_file(tmp_path: Path, name: str, content: str, expected: tuple[object, ...]) -> None:
    (tmp_path / name).write_text(content)
    assert read_inputs(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", b"\n \n", "no line"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.jsonl", b'"fine"\nnot json', "line 2 is not JSON"),
        ("a.jsonl", b'{"x": "a", "x": "b"}', "line 1 is not JSON: a key occurs twice"),
        ("a.jsonl", b"[1]", "line 1 must be"),
        ("a.jsonl", b'{"x": 1}', "line 1 must be"),
        ("a.jsonl", b"{}", "line 1 must be"),
    ],
)
def test_bad_input_files(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=why):
        read_inputs(tmp_path / name)


def test_a_stream_that_fails_is_a_failure() -> None:
    detail = {"code": "deadline_exceeded", "message": "Late.", "field": None, "request_id": "r"}

    def late(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, content=event("error", {"index": 0, "error": detail}) + event("done", {"id": "r"})
        )

    recorder, _ = run(spec_of(route="stream", requests=2), late)
    assert dict(recorder.errors) == {"deadline_exceeded": 2}


def test_connections_are_bounded_spread_and_given_back(url: str) -> None:
    async def go() -> tuple[list[int], list[int]]:
        transport = SpreadTransport(20)
        before = list(transport._free)
        recorder = Recorder()
        async with AsyncClient(url, transport=transport) as client:
            await run_load(client, spec_of(requests=60, concurrency=20, inputs=("fine", "fail")), recorder)
            await run_load(client, spec_of(requests=40, concurrency=20, route="stream"), recorder)
        assert len(recorder.outcomes) == 100
        assert set(recorder.errors) <= {"internal"}
        return before, transport._free

    before, after = asyncio.run(go())
    assert before == after == [8, 8, 4]


def test_a_connection_that_fails_is_given_back() -> None:
    async def go() -> list[int]:
        transport = SpreadTransport(3)
        recorder = Recorder()
        async with AsyncClient("http://127.0.0.1:1", transport=transport, retries=0) as client:
            await run_load(client, spec_of(requests=6, concurrency=3), recorder)
        assert dict(recorder.errors) == {"connection_failed": 6}
        return transport._free

    assert asyncio.run(go()) == [3]
