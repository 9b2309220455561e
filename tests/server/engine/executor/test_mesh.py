"""One model on several devices: the tokens of one device, and exactly the bytes that the plan promised.

Eight simulated devices need a process that says so before JAX starts.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import numpy as np
import pytest

from tests.compiling import NO_FUSION
from tests.places import IMPORTS, SHARED, python_module

REAL = SHARED / "models" / "flan-t5-small-title"
MESHES = ["1 x 4", "1 x 8", "2 x 4"]
# Tests compile more than they compute.
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    f"--xla_llvm_disable_expensive_passes=true {NO_FUSION}"
)


def _run(**wanted: Any) -> dict[str, Any]:
    """By mesh, what `mesh_child.py` found."""
    done = subprocess.run(
        [*python_module("tests.server.engine.executor.mesh_child"), json.dumps(wanted)],
        env={**os.environ, **IMPORTS, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {f"{found['mesh'][0]} x {found['mesh'][1]}": found for found in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def wide() -> dict[str, Any]:
    """A random T5 of 16 heads and odd widths."""
    meshes = [[1, 1], [1, 4], [1, 8], [2, 4]]
    return _run(model="wide", layout="unrolled", meshes=meshes, trained=[[1, 1], [1, 8], [2, 4]])


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    return _run(model=str(REAL), layout="scanned", meshes=[[1, 1], [1, 2]], trained=[])


def _tokens(found: dict[str, Any]) -> list[Any]:
    """Everything discrete that plans answered."""
    said: list[Any] = []
    for answer in found["answers"]:
        said.append(answer.get("failed"))
        said += [(slot["slot"], slot["tokens"], slot["done"]) for slot in answer.get("slots", ())]
        said += [[beam["tokens"] for beam in search["beams"]] for search in answer.get("beams", ())]
    return said


def _numbers(found: dict[str, Any]) -> list[float]:
    said: list[float] = []
    for answer in found["answers"]:
        for slot in answer.get("slots", ()):
            said += slot["log_probabilities"]
        for row in answer.get("log_probabilities", ()):
            said += row
    return said


def _check_answers(found: dict[str, Any], one: dict[str, Any]) -> None:
    assert _tokens(found) == _tokens(one)
    np.testing.assert_allclose(_numbers(found), _numbers(one), rtol=2e-5, atol=2e-5)
    assert len(_numbers(one)) > 20 and any(answer.get("beams") for answer in one["answers"])


@pytest.mark.parametrize("mesh", MESHES)
def test_every_program_answers_as_on_one_device(wide: dict[str, Any], mesh: str) -> None:
    data, model = (int(part) for part in mesh.split(" x "))
    assert wide[mesh]["devices_of_a_weight"] == data * model
    _check_answers(wide[mesh], wide["1 x 1"])


@pytest.mark.parametrize("mesh", ["1 x 8", "2 x 4"])
def test_training_takes_the_same_steps(wide: dict[str, Any], mesh: str) -> None:
    ours, one = wide[mesh]["training"], wide["1 x 1"]["training"]
    assert ours["greedy"] == one["greedy"]
    for name in ("losses", "scores", "prompts"):
        np.testing.assert_allclose(ours[name], one[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mesh", ["1 x 1", *MESHES])
def test_bytes_of_every_program_are_what_xla_says(wide: dict[str, Any], mesh: str) -> None:
    sizes = wide[mesh]["sizes"]
    assert {name: each["ours"] for name, each in sizes.items()} == {
        n: each["xla"] for n, each in sizes.items()
    }
    assert wide[mesh]["plan"] == wide[mesh]["allocated"]


def test_no_weight_travels_in_a_decode_step(wide: dict[str, Any]) -> None:
    for mesh in MESHES:
        assert wide[mesh]["largest_exchange"] <= wide[mesh]["logits"]
    # The control: left alone, the partitioner gathers the head to every device in every step.
    assert wide["1 x 8"]["control_exchange"] > wide["1 x 8"]["logits"]


@pytest.mark.shared
@pytest.mark.skipif(not REAL.exists(), reason=f"needs {REAL}")
def test_the_real_model_answers_alike_on_two_devices(real: dict[str, Any]) -> None:
    assert real["1 x 2"]["devices_of_a_weight"] == 2
    _check_answers(real["1 x 2"], real["1 x 1"])
    for found in real.values():
        assert all(each["ours"] == each["xla"] for each in found["sizes"].values())
        assert found["plan"] == found["allocated"]
