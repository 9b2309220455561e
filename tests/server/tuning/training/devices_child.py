"""Run in a process of its own with simulated devices: one job on several meshes.

    python devices_child.py '{"meshes": [[1, 1], [2, 2]], "layout": "unrolled", "matrix_dtype": "float32"}'

A mesh is [data, model]. With `resume`, a run on the first mesh stops half-way, and goes on on each. With
`wrong`, what the groups of devices give is added up wrongly. Writes JSON on standard output: for each mesh
the prompts, losses and evaluations, the warning of the checkpoint, and what devices send each other.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

from chorus_server.engine.executor.testing import lively_tensors
from chorus_server.model.mesh import DeviceMesh, device_mesh
from chorus_server.model.t5 import Model, assemble
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import TuningPrograms, compile_programs
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from chorus_server.tuning.training.state import TrainingState
from tests.server.engine.executor.mesh_child import WIDE
from tests.server.tuning.tuning_tools import RECIPE, VOCABULARY, task

STEPS = 20
# Three examples a dispatch do not divide by two groups.
WANTED = RECIPE.changed(
    steps=STEPS, batch_size=6, micro_batch_size=3, evaluate_every_steps=10, checkpoint_every_steps=5,
)  # fmt: skip
WRONG = {"one group alone": lambda each: each[0], "one group twice": lambda each: each[0] + each.sum(axis=0)}


def job() -> TrainingRun:
    """Two prompts: one of labels, one of free text."""

    def wide(made: PromptTask) -> PromptTask:
        shape = (made.recipe.prompt_length, WIDE.d_model)
        return replace(made, initial=np.random.default_rng(made.index).normal(size=shape).astype(np.float32))

    return TrainingRun(3, (wide(task(0, WANTED)), wide(task(1, WANTED, free_text=True))))


def make_model(mesh: DeviceMesh | None, layout: Any, matrix_dtype: Any) -> Model:
    layers = 2 if layout == "scanned" else 1
    config = replace(WIDE, num_encoder_layers=layers, num_decoder_layers=layers)
    tensors = lively_tensors(config, 0, 2.5)
    return assemble(config, layout, "float32", tensors, mesh=mesh, matrix_dtype=matrix_dtype)


def compiled(run: TrainingRun, model: Model) -> TuningPrograms:
    shapes = shapes_for(run, rungs=1, groups=model.functions.groups)
    return compile_programs(model.functions, model.params, shapes, dropping=True)


def trained(
    run: TrainingRun, programs: TuningPrograms, steps: int, folder: Path | None = None
) -> TrainingState:
    """The state after so many steps, from where the folder has it."""
    mesh = programs.functions.mesh
    state = None if folder is None else checkpoint.read_state(folder, run)
    loop = TuningLoop(run, programs, VOCABULARY.decode, state)
    while not loop.done and loop.state.step < steps:
        loop.run_slice(1)
    while steps == STEPS and not loop.done:  # the last evaluation
        loop.run_slice(1)
    if folder is not None:
        checkpoint.write_state(folder, run, loop.state, mesh=mesh)
    return loop.state


def exchanged(programs: TuningPrograms) -> list[list[int]]:
    """Shapes of the arrays that devices send each other in a training dispatch."""
    (program,) = programs.accumulate.values()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= \(?\w+\[([\d,]*)\]\S* (?:{kinds})\(", program.as_text())
    return [[int(n) for n in shape.split(",") if n] for shape in set(found)]


def on_mesh(wanted: dict[str, Any], data: int, model_axis: int, begun: Path | None) -> dict[str, Any]:
    mesh = device_mesh(data, model_axis) if data * model_axis > 1 else None
    model, run = make_model(mesh, wanted["layout"], wanted["matrix_dtype"]), job()
    programs, warning = compiled(run, model), None
    if begun is not None and not (begun / "job.json").exists():
        trained(run, programs, STEPS // 2, begun)
    with TemporaryDirectory() as name:
        folder = Path(name) / "state"
        if begun is not None:
            folder.mkdir()
            for each in begun.iterdir():
                (folder / each.name).write_bytes(each.read_bytes())
            warning = checkpoint.made_elsewhere(folder, run, mesh)
        state = trained(run, programs, STEPS, folder)
    (program,) = programs.accumulate.values()
    return {
        "mesh": f"{data} x {model_axis}",
        "prompts": state.prompts.tolist(),
        "losses": np.array(state.losses).tolist(),
        "evaluations": [each.evaluations for each in state.standings],
        "warning": warning,
        "exchanged": exchanged(programs),
        "temporaries": program.memory_analysis().temp_size_in_bytes,
        "devices_of_a_weight": len(jax.tree.leaves(model.params)[0].sharding.device_set),
    }


def main() -> None:
    wanted, sums = json.loads(sys.argv[1]), "chorus_server.tuning.training.objective._over_groups"
    with TemporaryDirectory() as name:
        begun = Path(name) if wanted.get("resume") else None
        found = [on_mesh(wanted, *each, begun) for each in wanted["meshes"]]
    for what in WRONG if wanted.get("wrong") else ():
        with patch(sums, WRONG[what]):
            found.append(on_mesh(wanted, 2, 1, None) | {"mesh": what})
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
