"""A conversion that is killed leaves no folder under the target's name; the next one succeeds."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints import open_checkpoint
from chorus_server.model.checkpoints.convert import write_random
from chorus_server.model.checkpoints.verify import verify_fingerprint
from chorus_server.model.config import named_config

CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from chorus_server.model.checkpoints.chorus_format import write_chorus
from chorus_server.model.checkpoints.convert import write_checkpoint
from chorus_server.model.config import named_config
from chorus_server.model.t5 import random_tensors
how, target, after, to = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
config, dtype = named_config("tiny"), np.dtype(np.float32)
def tensors():
    for count, item in enumerate(random_tensors(config, 0)):
        if count == after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item
if how == "whole":
    write_checkpoint(target, config, tensors(), to=to, dtype=dtype, vocabulary=None, source="test")
else:
    target.mkdir()
    write_chorus(target, config, tensors(), dtype=dtype, vocabulary=None, source="test")
"""


def killed(how: str, target: Path, after: int, to: str = "orbax") -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, how, str(target), str(after), to],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(("to", "after"), [("orbax", 0), ("orbax", 40), ("hf", 20), ("t5x", 20)])
def test_killed_conversion_leaves_no_target(tmp_path: Path, to: str, after: int) -> None:
    killed("whole", tmp_path / "m", after, to)
    assert not (tmp_path / "m").exists()
    assert [path.name.endswith(".partial") for path in tmp_path.iterdir()] == [True]
    written = write_random(named_config("tiny"), tmp_path / "m", seed=0)
    assert verify_fingerprint(open_checkpoint(tmp_path / "m")) == written.fingerprint


def test_control_writing_in_place_leaves_half_a_folder_that_is_refused(tmp_path: Path) -> None:
    killed("in place", tmp_path / "m", 40)
    assert (tmp_path / "m").exists()
    with pytest.raises(InvalidModelError, match="has no checkpoint"):
        open_checkpoint(tmp_path / "m")
