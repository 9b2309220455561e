"""Killed between steps, killed inside a checkpoint, told to stop: gone on, a run ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.errors import InvalidInputError
from server.pretraining.trainer import Trainer
from tests.compiling import QUICKLY
from tests.places import IMPORTS, python_module
from tests.server.pretraining.run_child import trainer


def child(
    folder: Path, compiled: Path, how: str, count: int, **environment: str
) -> subprocess.CompletedProcess[str]:
    # Children, and the process of the tests, compile the same programs: once is enough.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.run(
        [*python_module("tests.server.pretraining.run_child"), str(folder), how, str(count)],
        capture_output=True, text=True, timeout=1200, check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **IMPORTS, **cache, **environment},
    )  # fmt: skip


def finish(run: Trainer) -> dict[str, Any]:
    assert run.run() == "finished"
    run.checkpoints.close()
    return jax.device_get((run.state.tensors, run.state.optimiser))


def losses(run: Trainer) -> list[tuple[int, str, float]]:
    return [(line["step"], line["split"], line["loss"]) for line in run.curve.lines()]


def stopped_at(step: int, run: Trainer) -> None:
    run.stop = lambda: run.state.step == step
    assert run.run() == "stopped"
    run.checkpoints.close()


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, compiled_folder: Path) -> None:
    folder = tmp_path / "interrupted"
    # Three renames a checkpoint: the second one is killed inside, the first (of step 2) stands.
    died = child(folder, compiled_folder, "write", 5)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [path.name for path in sorted((folder / "state").iterdir()) if path.name.isdigit()] == ["2"]
    stopped_at(3, trainer(folder))
    died = child(folder, compiled_folder, "kill", 5)
    assert died.returncode == -signal.SIGKILL, died.stderr

    resumed = trainer(folder)
    assert resumed.state.step == 4
    whole = trainer(tmp_path / "whole")
    expected, found = finish(whole), finish(resumed)
    jax.tree.map(np.testing.assert_array_equal, expected, found)
    assert losses(resumed) == losses(whole)
    assert resumed.state.tokens == whole.state.tokens
    # The control: a run that forgets the optimiser's state is found out.
    forgetful = trainer(tmp_path / "forgetful")
    forgetful.stop = lambda: forgetful.state.step == 4
    assert forgetful.run() == "stopped"
    forgetful.state.optimiser = jax.tree.map(jnp.zeros_like, forgetful.state.optimiser)
    forgetful.stop = lambda: False
    pairs = zip(jax.tree.leaves(finish(forgetful)[0]), jax.tree.leaves(expected[0]), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_a_run_may_get_another_end_until_its_cooldown_begins(tmp_path: Path) -> None:
    stopped_at(3, trainer(tmp_path / "longer", steps=5, cooldown_steps=2))
    longer = trainer(tmp_path / "longer", steps=7, cooldown_steps=3)
    assert longer.state.step == 3
    planned = trainer(tmp_path / "planned", steps=7, cooldown_steps=3)
    jax.tree.map(np.testing.assert_array_equal, finish(planned), finish(longer))

    stopped_at(4, trainer(tmp_path / "cooling", steps=5, cooldown_steps=2))
    with pytest.raises(InvalidInputError, match="steps was 5, is 7"):
        trainer(tmp_path / "cooling", steps=7, cooldown_steps=2)
    stopped_at(3, trainer(tmp_path / "shorter", steps=5, cooldown_steps=2))
    with pytest.raises(InvalidInputError, match="steps was 5, is 4"):
        trainer(tmp_path / "shorter", steps=4, cooldown_steps=2)


def test_eight_devices_learn_what_one_does(tmp_path: Path, compiled_folder: Path) -> None:
    eight = f"{QUICKLY['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = child(tmp_path / "eight", compiled_folder, "devices", 2, XLA_FLAGS=eight)
    assert done.returncode == 0, done.stderr
    alone = trainer(tmp_path / "one", rows=8)
    expected, _ = finish(alone)
    said = json.loads(done.stdout)
    np.testing.assert_allclose(
        said["losses"], [loss for _, split, loss in losses(alone) if split == "train"], rtol=1e-5
    )
    # What eight devices wrote, one can read.
    reread = trainer(tmp_path / "eight", rows=8).state
    assert reread.step == 6
    for name, tensor in expected.items():
        np.testing.assert_allclose(reread.tensors[name], tensor, atol=2e-4, err_msg=name)
