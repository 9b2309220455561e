"""A job on several devices: the prompts of one device, a part of its memory, and no weight that travels.

Four simulated devices need a process that says so before JAX starts.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from chorus_server.tuning.training.packing import dispatches, pack_batch
from chorus_server.tuning.training.programs import table
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from tests.places import IMPORTS, python_module
from tests.server.engine.executor.test_mesh import FLAGS
from tests.server.tuning.tuning_tools import RECIPE, model, task

MESHES = ["2 x 1", "1 x 2", "2 x 2"]
WRONG = ["one group alone", "one group twice"]
NEAR = 1e-5


def _run(**wanted: Any) -> dict[str, Any]:
    """By mesh, what `devices_child.py` found."""
    done = subprocess.run(
        [*python_module("tests.server.tuning.training.devices_child"), json.dumps(wanted)],
        env={**os.environ, **IMPORTS, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {found["mesh"]: found for found in json.loads(done.stdout)}


def _apart(found: dict[str, Any], one: dict[str, Any]) -> float:
    """How far apart the prompts are, relative to the largest value."""
    ours, theirs = np.array(found["prompts"]), np.array(one["prompts"])
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """Two prompts, 20 steps, with dropout."""
    meshes = [[1, 1], [2, 1], [1, 2], [2, 2]]
    return _run(meshes=meshes, layout="unrolled", matrix_dtype="float32", wrong=True)


@pytest.mark.parametrize("mesh", MESHES)
def test_several_devices_train_the_same_prompts(trained: dict[str, Any], mesh: str) -> None:
    one, found = trained["1 x 1"], trained[mesh]
    assert found["devices_of_a_weight"] == np.prod([int(part) for part in mesh.split(" x ")])
    assert _apart(found, one) < NEAR
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=NEAR)
    assert found["evaluations"] == one["evaluations"] and len(one["losses"]) == 20


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_sum_over_groups_trains_others(trained: dict[str, Any], wrong: str) -> None:
    """The control: a group that does not count, and one that counts twice."""
    assert _apart(trained[wrong], trained["1 x 1"]) > 1000 * NEAR


def test_a_group_holds_its_own_rows_and_devices_exchange_no_weight(trained: dict[str, Any]) -> None:
    one = trained["1 x 1"]["temporaries"]
    # Of three rows of each prompt a group has two at most.
    assert trained["2 x 1"]["temporaries"] < 0.7 * one
    assert trained["1 x 2"]["temporaries"] < 0.6 * one and trained["2 x 2"]["temporaries"] < 0.4 * one
    for mesh in MESHES:
        whole = {40 * 48, 40 * 168, 48 * 48}  # of feed-forward, head and attention
        assert not [shape for shape in trained[mesh]["exchanged"] if int(np.prod(shape)) in whole]


def test_a_job_goes_on_on_other_devices_and_says_so() -> None:
    """Stacked layers. Begun on one device; each mesh goes on from there."""
    found = _run(meshes=[[1, 1], [2, 2]], layout="scanned", matrix_dtype="float32", resume=True)
    assert _apart(found["2 x 2"], found["1 x 1"]) < NEAR
    assert found["1 x 1"]["warning"] is None
    assert "devices 1 x 1 -> 2 x 2" in found["2 x 2"]["warning"]


def test_matrices_of_bf16_train_alike() -> None:
    """Not as near: a sum that differs in its last bit may be rounded to another bf16."""
    found = _run(meshes=[[1, 1], [2, 2]], layout="scanned", matrix_dtype="bfloat16")
    assert _apart(found["2 x 2"], found["1 x 1"]) < 0.02


def _rows(job: TrainingRun, groups: int, step: int = 0) -> list[dict[str, Any]]:
    """The rows of a step's dispatches, each by what it holds, in the order of the groups."""
    shapes, found = shapes_for(job, rungs=1, groups=groups), []
    chosen = [range(6), range(3, 9)]
    for length, some in dispatches(shapes, job, chosen):
        batch, rows = pack_batch(168, shapes, job, step, some, length), shapes.rows_at(length)
        tokens = shapes.tokens_at(length)
        for place, (start, size) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
            group = place // (len(chosen) * rows)
            ids = batch.ids[group * tokens : (group + 1) * tokens][start : start + size]
            row = {"ids": ids.tolist(), "target": batch.targets[place].tolist()}
            found.append(row | {"key": batch.keys[place].tolist(), "used": int(size)})
    return [row for row in found if row["used"]]


def test_groups_share_the_rows_of_a_step() -> None:
    job = TrainingRun(3, (task(0, RECIPE.changed(batch_size=6, micro_batch_size=3)),
                          task(1, RECIPE.changed(batch_size=6, micro_batch_size=3))))  # fmt: skip
    alone = sorted(_rows(job, 1), key=str)
    for groups in (2, 3, 4, 8):
        assert sorted(_rows(job, groups), key=str) == alone, groups
    shapes = asdict(shapes_for(job, rungs=1, evaluation_rows=3, groups=4))
    assert (shapes["evaluation_rows"], shapes["rows_by_length"]) == (4, (1,))


def test_shapes_are_for_as_many_groups_as_the_model_has() -> None:
    job = TrainingRun(3, (task(),))
    with pytest.raises(ValueError, match="shapes for 2 groups of devices, the model has 1"):
        list(table(model().functions, model().params, shapes_for(job, groups=2), dropping=False))
