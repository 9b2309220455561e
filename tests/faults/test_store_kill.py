"""kill -9 at random instants of a process that publishes, moves aliases, deletes and collects."""

import os
import random
import select
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from prompts_store import PromptStore
from prompts_store.testing import example_prompt, file_bytes
from tests.faults.store_kill_child import opened, put_elsewhere, rows_of
from tests.places import IMPORTS, python_module
from tests.postgres_server import PostgresServer
from tests.s3_server import S3Server
from tether import tethered

KILLS = 20
REPLICAS, KILLS_OF_EACH = 3, 3
SEED = 2026


class Launcher:
    """One process that forks the children, so that each costs milliseconds, not an import of everything."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def kill_one(
        self, folder: Path, number: int, kind: str, chance: random.Random
    ) -> list[tuple[str, int, int]]:
        """Start a child, kill it, and answer with what it was acknowledged: task, version number, seed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder} {number} {kind}\n")
        self._process.stdin.flush()
        child = int(self._line().split()[1])
        enough = chance.randrange(12)
        acknowledged: list[tuple[str, int, int]] = []
        while len(acknowledged) < enough:
            acknowledged.append(self._acknowledgement(self._line()))
        # The instant is random, not synchronised with anything.
        select.select([], [], [], chance.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        while (line := self._line()) != "dead":
            acknowledged.append(self._acknowledgement(line))
        return acknowledged

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the launcher ended"
        return line.strip()

    @staticmethod
    def _acknowledgement(line: str) -> tuple[str, int, int]:
        word, task, number, seed = line.split()
        assert word == "ack"
        return task, int(number), int(seed)


@contextmanager
def _launcher() -> Iterator[Launcher]:
    environment = {**os.environ, **IMPORTS, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        tethered(python_module("tests.faults.store_kill_child")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Launcher(process)


@pytest.fixture(params=["folder", "bucket", "bucket and postgresql", "bucket and postgresql 18"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder for a store, whose blobs are there or in a bucket, and its rows there or in PostgreSQL."""
    if request.param != "folder":
        name = {"18": "newest_postgres_server", "postgresql": "postgres_server"}.get(
            request.param.split()[-1]
        )
        url = name and request.getfixturevalue(name).create()
        put_elsewhere(tmp_path, request.getfixturevalue("s3_server").address(), url)
    return tmp_path


def kills_of(place: Path) -> int:
    """Fewer where a store is elsewhere, because the same code is killed."""
    return KILLS // 4 if list(place.iterdir()) else KILLS


def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(place: Path) -> None:
    kills = kills_of(place)
    chance = random.Random(SEED)
    acknowledged: list[tuple[str, int, int]] = []
    left_behind = 0
    with _launcher() as launcher:
        for number in range(kills):
            acknowledged += launcher.kill_one(place, number, "sound", chance)
            with closing(opened(place)) as store:
                report = store.check()
                assert report.clean, f"after kill {number} (seed {SEED}): {report.problems}"
                left_behind += report.orphans + report.temporary_files
    _require_all(place, acknowledged)
    assert len(acknowledged) >= kills, "the children did too little to show anything"
    assert left_behind > 0 or kills < KILLS // 2, "no kill hit an upload"


def _require_all(place: Path, acknowledged: list[tuple[str, int, int]]) -> None:
    with closing(opened(place)) as store:
        for task, version, seed in acknowledged:
            values, manifest = example_prompt(seed - seed % 3, template=f"{seed} {{text}}")
            stored = store.get_version("acme", task, version)
            assert stored.manifest == manifest
            assert np.array_equal(store.values(stored.manifest.digest), values)
        store.collect(grace_seconds=0)
        report = store.check()
        assert report.clean and (report.orphans, report.temporary_files) == (0, 0)


def test_nothing_acknowledged_is_lost_of_replicas_that_are_killed_while_others_work(
    tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server
) -> None:
    """Each with a folder of its own, as on machines of their own, and collecting what the others store."""
    address, url = s3_server.address(), postgres_server.create()
    folders = [tmp_path / str(number) for number in range(REPLICAS)]
    for folder in folders:
        folder.mkdir()
        put_elsewhere(folder, address, url)
    with closing(opened(folders[0])):  # the tables are there
        pass

    def lives(replica: int) -> list[tuple[str, int, int]]:
        chance = random.Random(SEED + replica)
        with _launcher() as launcher:
            numbers = range(replica, REPLICAS * KILLS_OF_EACH, REPLICAS)
            found = [launcher.kill_one(folders[replica], number, "sound", chance) for number in numbers]
        return [one for some in found for one in some]

    with ThreadPoolExecutor(REPLICAS) as pool:
        acknowledged = [one for some in pool.map(lives, range(REPLICAS)) for one in some]
    _require_all(folders[0], acknowledged)
    assert len(acknowledged) >= REPLICAS * KILLS_OF_EACH, "the children did too little to show anything"


def test_no_acknowledged_file_is_lost_and_no_job_is_half_there(place: Path) -> None:
    kills = kills_of(place) // 2
    chance = random.Random(SEED)
    acknowledged: list[tuple[str, int, int]] = []
    left_behind = 0
    with _launcher() as launcher:
        for number in range(kills):
            acknowledged += launcher.kill_one(place, number, "files", chance)
            with closing(opened(place)) as store:
                report = store.check()
                assert report.clean, f"after kill {number} (seed {SEED}): {report.problems}"
                left_behind += report.orphans + report.temporary_files
    with closing(opened(place)) as store:
        for file_id, size, seed in acknowledged:
            content = file_bytes(store, "acme", file_id)
            assert len(content) == size and content == rows_of(seed)
        for job in store.list_jobs("scratch", "tuning", limit=500).items:
            events = store.job_events("scratch", job.id)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [event.data["status"] for event in events if event.kind == "status"][-1] == job.status
        store.collect(grace_seconds=0)
        report = store.check()
        assert report.clean and (report.orphans, report.temporary_files) == (0, 0)
    assert len(acknowledged) >= kills, "the children did too little to show anything"
    assert left_behind > 0 or kills < KILLS // 2, "no kill hit an upload"


def test_control_the_row_before_the_blob_loses(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with _launcher() as launcher:
        for number in range(KILLS):
            folder = tmp_path / str(number)
            launcher.kill_one(folder, number, "row_first", chance)
            with closing(PromptStore.open(folder)) as store:
                if any(problem.kind == "missing_blob" for problem in store.check().problems):
                    return
    raise AssertionError(f"{KILLS} kills hit no half-registered version")
