"""kill -9 between steps and inside a checkpoint write; resumed, the job ends as if it had not happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import numpy as np

from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.state import TrainingState
from tests.places import IMPORTS, python_module
from tests.server.tuning.training import tuning_kill_child
from tests.server.tuning.training.tuning_kill_child import JOB
from tests.server.tuning.tuning_tools import VOCABULARY, programs

SEED = 2026


def _finish(state: TrainingState | None) -> TrainingState:
    loop = TuningLoop(JOB, programs(JOB), VOCABULARY.decode, state)
    while not loop.done:
        loop.run_slice(100)
    return loop.state


def _killed(folder: Path, how: str, k: int) -> None:
    done = subprocess.run(
        [*python_module(tuning_kill_child), str(folder), how, str(k)],
        capture_output=True, text=True, timeout=1200, check=False, env={**os.environ, **IMPORTS},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_killed_job_ends_with_the_same_bits(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    # The first checkpoint is two syncs and two renames; the second is killed inside.
    _killed(tmp_path, "write", 4 + chance.randint(1, 4))
    first = checkpoint.read_state(tmp_path, JOB)
    assert first is not None and first.step in (2, 3)
    _killed(tmp_path, "step", chance.randint(4, 6))
    second = checkpoint.read_state(tmp_path, JOB)
    assert second is not None and first.step <= second.step < 6
    whole, resumed = _finish(None), _finish(second)
    for name in ("prompts", "second_moment", "best", "losses"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(resumed, name), name)
    assert whole.standings == resumed.standings
    # The control: a checkpoint that forgets the second moment is found out.
    forgetful = checkpoint.read_state(tmp_path, JOB)
    assert forgetful is not None
    forgetful.second_moment = np.zeros_like(forgetful.second_moment)
    assert not np.array_equal(_finish(forgetful).prompts, whole.prompts)
