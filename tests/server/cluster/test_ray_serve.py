"""Chorus on a real Ray Serve: one cluster, because it takes twenty seconds to start. Each test goes on with
the replicas of those before."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import pytest

from chorus import Client, RetryPolicy
from tests.end_to_end.conftest import compile_cache, tiny_model
from tests.end_to_end.drained import long_job
from tests.end_to_end.served import SAME_NUMBERS, TINY
from tests.end_to_end.test_serve_tiny import BINARY, npy
from tests.server.api.api_harness import eventually
from tests.server.cluster.ray_cluster import RayCluster, metric

__all__ = ["compile_cache", "tiny_model"]  # fixtures

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPERATOR = "an-operator-of-tests-0123456789"
TASKS = [f"task-{number}" for number in range(8)]
OWN = f"/v1/tasks/{TASKS[0]}"
DRAIN_SECONDS = 10
CLIENTS = 6
START_PAUSE_SECONDS = 0.5
"""Of a client after an answer, while a replica starts and nothing else happens: they share a processor."""
SHAPES = TINY | {"shapes": "input_lengths=48 batch_rows=4 blocks=48x128x4 score_buckets=2x16"}
LONG = {"task": None, "inputs": ["good film"] * 32, "max_new_tokens": 128, "min_new_tokens": 128}
"""Thousands of steps."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database and the blobs of all replicas."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def cluster(ray_path: str, data: Path, tiny_model: Path, compile_cache: Path) -> Iterator[RayCluster]:
    key = data / "operator"
    key.write_text(OPERATOR)
    given = {
        "model": tiny_model,
        "data_dir": data,
        "compile_cache_dir": compile_cache,
        "operator_key_file": key,
    }
    given |= {"drain_seconds": DRAIN_SECONDS, "log_level": "warning"} | SHAPES | SAME_NUMBERS
    # Ray has sockets below its folder, and their paths have 107 bytes at most.
    with TemporaryDirectory(prefix="ray-") as folder, RayCluster(ray_path, Path(folder), **given) as made:
        made.http.headers["authorization"] = f"Bearer {OPERATOR}"
        yield made


@dataclass
class Load:
    """Clients that ask without pause and never again.

    Attributes:
        expected: the text of each task's answer.
        key: theirs.
        answered: how many answers each had, by kind.
        wrong: answers that were others, or none.
        pause_seconds: after each answer.
    """

    cluster: RayCluster
    expected: dict[str, str]
    key: str
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    pause_seconds: float = 0.0

    def slow_down(self, states: set[str]) -> None:
        """Ask seldom while a replica starts, but without pause while another one is stopped."""
        only_starts = "STARTING" in states and "STOPPING" not in states
        self.pause_seconds = START_PAUSE_SECONDS if only_starts else 0.0

    def run(self, number: int) -> None:
        headers = {"authorization": f"Bearer {self.key}"}
        with httpx2.Client(base_url=self.cluster.http.base_url, headers=headers, timeout=300) as http:
            while not self.over.is_set():
                number += 1
                task, stream = TASKS[number % len(TASKS)], number % 3 == 0
                try:
                    text = generate(http, task, stream, {"x-session-id": task} if number % 2 else {})
                except (httpx2.HTTPError, AssertionError, KeyError, ValueError) as error:
                    self.wrong.append(f"{task} {stream}: {type(error).__name__}: {error}")
                    continue
                if text != self.expected[task]:
                    self.wrong.append(f"{task} {stream}: {text!r}")
                self.answered["stream" if stream else "plain"] += 1
                self.over.wait(self.pause_seconds)


def generate(http: httpx2.Client, task: str, stream: bool, headers: dict[str, str]) -> str:
    """The text of an answer, or of a stream's pieces, joined."""
    body = {"task": task, "input": "a good film", "max_new_tokens": 8, "stream": stream}
    answer = http.post("/v1/generate", json=body, headers=headers)
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    assert len(answer.headers.get_list("x-request-id")) == 1
    if not stream:
        return str(answer.json()["results"][0]["text"])
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.split("\n\n")]
    events = [(each["event"], json.loads(each["data"])) for each in blocks if "event" in each]
    assert events[-1][0] == "done" and "result" in dict(events), answer.text
    return "".join(data["text"] for name, data in events if name == "token")


@contextmanager
def load(cluster: RayCluster, expected: dict[str, str], key: str = OPERATOR) -> Iterator[Load]:
    """The clients at work, until the block ends."""
    made = Load(cluster, expected, key)
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(made.run, number) for number in range(CLIENTS)]
        try:
            before = sum(made.answered.values())
            eventually(lambda: sum(made.answered.values()) >= before + CLIENTS or bool(made.wrong))
            yield made
            made.pause_seconds, before = 0.0, sum(made.answered.values())
            eventually(lambda: sum(made.answered.values()) >= before + CLIENTS or bool(made.wrong))
        finally:
            made.over.set()
        for each in running:
            each.result()


@pytest.fixture(scope="module")
def expected(cluster: RayCluster) -> dict[str, str]:
    """The tasks, published through the proxy, and what each answers."""
    cluster.deploy(1, 2)
    cluster.wait_for(1)
    for seed, task in enumerate(TASKS):
        url = f"/v1/tasks/{task}/versions"
        made = cluster.http.post(url, content=npy(1 + seed, seed, 4.0), headers=BINARY)
        assert made.status_code == 201, made.text
    found = {task: generate(cluster.http, task, False, {}) for task in TASKS}
    assert len(set(found.values())) > 1
    return found


def test_work_that_waits_brings_a_replica(cluster: RayCluster, expected: dict[str, str]) -> None:
    """There are four slots, and one work unit that waits is enough here."""
    over = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=cluster.http.base_url, headers=cluster.http.headers, timeout=300) as http:
            while not over.is_set():
                assert http.post("/v1/generate", json=LONG).status_code == 200

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            cluster.wait_for(2)
        finally:
            over.set()
        for each in asking:
            each.result()
    cluster.deploy(2, 2)


def test_every_task_answers_alike_from_both(cluster: RayCluster, expected: dict[str, str]) -> None:
    cluster.wait_for(2)
    replicas = cluster.own(OWN)
    assert len(replicas) == 2
    for http in replicas:
        assert {task: generate(http, task, False, {}) for task in TASKS} == expected
    before = [metric(http, "chorus_requests_total") for http in replicas]
    with load(cluster, expected) as seen:
        eventually(lambda: min(seen.answered.values(), default=0) >= 12)
    assert not seen.wrong
    answered = [metric(http, "chorus_requests_total") for http in replicas]
    more = [now - then for now, then in zip(answered, before, strict=True)]
    assert all(more) and sum(more) == sum(seen.answered.values())
    refused = cluster.http.get("/metrics")
    assert refused.status_code == 404 and "ask each replica itself" in refused.text


def test_a_request_has_one_id(cluster: RayCluster) -> None:
    body = {"task": None, "input": "good film", "max_new_tokens": 2}
    for given in ({"x-request-id": "mine-1"}, {}):
        answer = cluster.http.post("/v1/generate", json=body, headers=given)
        (told,) = answer.headers.get_list("x-request-id")
        assert answer.json()["id"] == told and told == given.get("x-request-id", told)


def test_requests_of_one_session_go_to_one_replica(cluster: RayCluster, expected: dict[str, str]) -> None:
    replicas = cluster.own(OWN)
    took = Counter[int]()
    for task in TASKS:
        before = [metric(http, "chorus_requests_total") for http in replicas]
        for _ in range(3):
            generate(cluster.http, task, False, {"x-session-id": f"default/{task}"})
        after = [metric(http, "chorus_requests_total") for http in replicas]
        more = [now - then for now, then in zip(after, before, strict=True)]
        assert sorted(more) == [0, 3]
        took[more.index(3)] += 1
    assert took.total() == len(TASKS)


def test_when_a_client_leaves_its_work_ends(cluster: RayCluster) -> None:
    replicas = cluster.own(OWN)

    def told(name: str, **labels: str) -> float:
        return sum(metric(http, name, **labels) for http in replicas)

    for stream in (True, False):
        cancelled = told("chorus_requests_total", outcome="cancelled")
        body = json.dumps(LONG | {"stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", cluster.port)) as leaving:
            head = f"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n"
            leaving.sendall(f"{head}Content-Type: application/json\r\n".encode())
            leaving.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            eventually(lambda: told("chorus_running_requests") > 0)
        eventually(lambda: told("chorus_requests_total", outcome="cancelled") > cancelled)  # noqa: B023
        gauges = ("chorus_running_requests", "chorus_queued_requests", "chorus_slots_in_use")
        eventually(lambda: not any(told(name) for name in gauges))  # noqa: B023


def test_a_replica_that_is_killed_loses_only_what_it_had(
    cluster: RayCluster, expected: dict[str, str]
) -> None:
    """Clients that try again see nothing of it."""
    before = cluster.wait_for(2)
    patient = RetryPolicy(retries=8, budget_ratio=1, budget_reserve=100, repeat_inference=True)
    url = f"http://127.0.0.1:{cluster.port}"
    answered, over = Counter[str](), threading.Event()

    def ask(number: int) -> None:
        with Client(url, OPERATOR, retries=patient) as client:
            while not over.is_set():
                number += 1
                task = TASKS[number % len(TASKS)]
                answer = client.generate(task=task, input="a good film", max_new_tokens=8)
                assert answer.results[0].text == expected[task]
                answered[task] += 1
                over.wait(impatient.pause_seconds)

    with load(cluster, expected) as impatient, ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask, number) for number in range(CLIENTS)]
        try:
            eventually(lambda: sum(answered.values()) > CLIENTS)
            killed = min(before)
            os.kill(killed, signal.SIGKILL)
            enough = sum(answered.values()) + 8 * CLIENTS
            eventually(lambda: sum(answered.values()) >= enough)
            cluster.wait_for(2, without=frozenset({killed}), look=impatient.slow_down)
            enough = sum(answered.values()) + 2 * CLIENTS
            eventually(lambda: sum(answered.values()) >= enough)
        finally:
            over.set()
        for each in asking:
            each.result()
    # What was in flight there: at most a request of each client; and Ray sends some more until it knows.
    assert len(impatient.wrong) <= 4 * CLIENTS, impatient.wrong


def follow(cluster: RayCluster, job: str) -> str:
    """The last event of a job that somebody follows, or why there was none."""
    with httpx2.Client(base_url=cluster.http.base_url, headers=cluster.http.headers, timeout=300) as http:
        try:
            text = http.get(f"/v1/tuning/jobs/{job}/events").text
        except httpx2.HTTPError as error:
            return type(error).__name__
    last = [line for line in text.splitlines() if line.startswith("data: ")][-1]
    return str(json.loads(last.removeprefix("data: ")).get("error", {}).get("code"))


def test_a_rolling_update_loses_nothing(cluster: RayCluster, expected: dict[str, str], data: Path) -> None:
    """Not even what was used; and one who follows a job, and would stay for ever, is told."""
    before = frozenset(cluster.wait_for(2))
    job = long_job(data)
    made = cluster.http.post("/v1/keys?tenant=default", json={"name": "update", "scopes": ["infer"]}).json()

    def used() -> int:
        sums = cluster.http.get("/v1/usage?group_by=key").json()["usage"]
        return sum(each["items"] for each in sums if each["key"] == made["id"])

    with load(cluster, expected, made["key"]) as seen, ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, cluster, job)
        cluster.deploy(2, 2, log_level="error")
        cluster.wait_for(2, without=before, look=seen.slow_down)
        assert following.result() == "shutting_down"
    assert not seen.wrong
    assert seen.answered["plain"] and seen.answered["stream"]
    eventually(lambda: used() == seen.answered.total())


def test_a_scale_in_loses_nothing(cluster: RayCluster, expected: dict[str, str]) -> None:
    cluster.wait_for(2)
    with load(cluster, expected) as seen:
        cluster.deploy(1, 1, log_level="error")
        cluster.wait_for(1)
    assert not seen.wrong


def test_the_control_without_a_drain(cluster: RayCluster, data: Path) -> None:
    """Ray waits for one who follows a job until the time is over, and kills the replica. (Comes last.)"""
    before = frozenset(cluster.wait_for(1))
    cluster.deploy(1, 1, application="tests.server.cluster.undrained:application", drain_seconds=0)
    cluster.wait_for(1, without=before)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, cluster, long_job(data))
        cluster.delete()
        assert following.result() != "shutting_down"
