"""kill -9 of a process that records usage while the database is away: what was saved is there, once."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.metrics import UsageMetrics
from chorus_server.tenancy.usage import UsageRecorder
from prompts_store.store import PromptStore
from tests.places import IMPORTS, python_module
from tests.prompts_store.usage.usage_rows import in_tables
from tests.server.tenancy import usage_child
from tether import tethered

SEED = 2026


def kill_one(folder: Path, seconds: float, chance: random.Random) -> tuple[int, int]:
    """How many rows a child had recorded when it was killed, and how many of them it had saved."""
    command = [*tethered(python_module(usage_child)), str(folder), str(seconds)]
    recorded = saved = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | IMPORTS) as child:
        assert child.stdout is not None
        saves, more = chance.randrange(1, 6) if seconds else 0, chance.randrange(1, 500)
        for line in child.stdout:
            word, number = line.split()
            if word == "saved":
                saved = int(number)
                saves -= saved >= 10  # so many that some can be cut off
            else:
                recorded = int(number)
                more -= saves <= 0
            if not more:
                child.kill()  # and read on: what it said until then
    return recorded, saved


def replay(data_dir: Path, folder: Path) -> int:
    """The rows that the next process finds, after it has written all of them twice."""
    with closing(PromptStore.open(data_dir)) as store:
        for _ in range(2):
            recorder = UsageRecorder(store.record_usage, folder, UsageMetrics(MetricsRegistry()))
            recorder.start()
            recorder.close(300)
        rows, hours = in_tables(store)
        assert rows == hours
    assert list(folder.glob("*")) == []
    return rows[0]


def test_kill_9_loses_what_was_recorded_since_the_last_save_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    lost_something = False
    for number in range(6):
        recorded, saved = kill_one(tmp_path / f"{number}", 0.01, chance)
        found = replay(tmp_path / f"store-{number}", tmp_path / f"{number}")
        # One more may have been recorded, and not said yet.
        assert 0 < saved <= found <= recorded + 1, f"kill {number} (seed {SEED})"
        lost_something |= found < recorded
    assert lost_something, "no kill came between two saves, so the test shows nothing"


def test_control_a_recorder_without_a_spool_loses_everything(tmp_path: Path) -> None:
    recorded, saved = kill_one(tmp_path / "spool", 0, random.Random(SEED))
    assert recorded and not saved
    assert replay(tmp_path / "store", tmp_path / "spool") == 0


@pytest.mark.parametrize("cut", [2, 40, 200])
def test_a_line_that_was_cut_off_is_the_only_one_lost(tmp_path: Path, cut: int) -> None:
    """A power cut may leave half a line at the end."""
    kill_one(tmp_path / "spool", 0.01, random.Random(SEED))
    (file,) = (tmp_path / "spool").glob("*.jsonl")
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    whole = content[:-cut].count(b"\n")
    assert 0 < whole < content.count(b"\n")
    assert replay(tmp_path / "store", tmp_path / "spool") == whole
