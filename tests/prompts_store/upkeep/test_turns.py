"""Several real processes on one PostgreSQL and one bucket: of all that ask, one collects."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import store_identity
from prompts_store.testing import FakeClock
from tests.faults.store_kill_child import opened, put_elsewhere
from tests.places import IMPORTS, python_module
from tests.postgres_server import PostgresServer
from tests.s3_server import S3Server
from tether import tethered

PROCESSES, ROUNDS = 4, 5


class Keepers:
    """Processes that look after one store when they are told to."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "open\n"

    def asked(self) -> Counter[str]:
        """What they answer, who are all told at once."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("now\n")
            process.stdin.flush()
        return Counter(process.stdout.readline().strip() for process in self._processes if process.stdout)


def set_due(store: PromptStore, moment: datetime | None) -> None:
    """Say when upkeep is due, whoever has the turn."""
    with store._database.write(EVERY_TENANT) as connection:
        connection.execute(update(store_identity).values(upkeep_due_at=moment))


@contextmanager
def keepers(folder: Path, *how: str) -> Iterator[Keepers]:
    command = [*tethered(python_module("tests.prompts_store.upkeep.upkeep_child")), str(folder), *how]
    environment = {**os.environ, **IMPORTS, "OPENBLAS_NUM_THREADS": "1"}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
                )
            )
            for _ in range(PROCESSES)
        ]
        yield Keepers(processes)


@pytest.fixture
def place(tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server) -> Path:
    put_elsewhere(tmp_path, s3_server.address(), postgres_server.create())
    return tmp_path


def test_one_of_four_collects_each_time_that_it_is_due(place: Path) -> None:
    with closing(opened(place)) as store, keepers(place) as all_of_them:
        for _ in range(ROUNDS):
            assert all_of_them.asked() == {"collected": 1, "waits": PROCESSES - 1}
            assert all_of_them.asked() == {"waits": PROCESSES}
            set_due(store, None)  # as if an hour were over


def test_one_that_was_taken_waits_as_long_as_it_says(store: PromptStore, clock: FakeClock) -> None:
    store.collect(grace_seconds=0)  # it has an id from now on, in memory too
    assert store.claim_upkeep(60)[0] == 0 and store.claim_upkeep(60) == (60, None)
    clock.advance(59)
    assert store.claim_upkeep(60) == (1, None)
    clock.advance(1)
    wait, turn = store.claim_upkeep(60)
    assert wait == 0
    store.end_upkeep(turn, 5)
    assert store.claim_upkeep(60) == (5, None)


@pytest.mark.parametrize("ahead", [121.0, 10 * 365 * 86_400.0])
def test_a_clock_that_was_wrong_holds_nobody_up(store: PromptStore, clock: FakeClock, ahead: float) -> None:
    """Nor does a process with a longer interval; clocks that differ a little do not make two collect."""
    store.collect(grace_seconds=0)
    set_due(store, clock() + timedelta(seconds=120))
    assert store.claim_upkeep(60) == (120, None), "control"
    set_due(store, clock() + timedelta(seconds=ahead))
    assert store.claim_upkeep(60)[0] == 0 and store.claim_upkeep(60) == (60, None)


def test_who_took_too_long_does_not_end_anothers_turn(store: PromptStore, clock: FakeClock) -> None:
    store.collect(grace_seconds=0)
    _, slow = store.claim_upkeep(60)
    clock.advance(61)
    wait, turn = store.claim_upkeep(60)
    assert wait == 0
    store.end_upkeep(slow, 5)
    assert store.claim_upkeep(60) == (60, None)
    store.end_upkeep(turn, 5)
    assert store.claim_upkeep(60) == (5, None), "control"


def test_control_without_turns_each_collects(place: Path) -> None:
    with keepers(place, "apart") as all_of_them:
        assert all_of_them.asked() == {"collected": PROCESSES}
