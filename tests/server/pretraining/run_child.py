"""A process that trains the toy: python run_child.py FOLDER HOW [N]

    whole      to the end
    kill N     SIGKILL itself after step N
    write N    SIGKILL itself before the N-th rename of a checkpoint
    devices N  to the end with eight rows, each weight shared by N of the devices that XLA_FLAGS simulates

Prints the losses as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax

from chorus_server.model.t5 import random_tensors
from chorus_server.pretraining.checkpoints import Checkpoints, State
from chorus_server.pretraining.curve import Curve
from chorus_server.pretraining.mesh import make_mesh
from chorus_server.pretraining.programs import make_programs
from chorus_server.pretraining.trainer import Cadence, Trainer
from tests.server.pretraining.pretraining_tools import RandomSource, architecture, programs_for, settings

CADENCE = Cadence(
    report_every_steps=1, evaluate_every_steps=3, checkpoint_every_steps=2, checkpoint_every_minutes=0
)


def trainer(folder: Path, *, model_devices: int = 1, rows: int = 2, **ending: int) -> Trainer:
    """The toy's run in a folder, from where it stands."""
    config, chosen = architecture(), settings(micro_batch_size=rows, batch_size=2 * rows, **ending)
    mesh = make_mesh(model_devices, rows)
    programs = programs_for(chosen) if mesh is None else make_programs(config, chosen, mesh)
    tensors = {
        name: jax.device_put(array, None if programs.weights is None else programs.weights[name])
        for name, array in random_tensors(config, 0)
    }
    optimiser = programs.start(tensors)
    checkpoints = Checkpoints(folder / "state", chosen.to_json(), background=False)
    state = checkpoints.restore(tensors, optimiser) or State(0, tensors, optimiser)
    curve = Curve(folder / "curve.jsonl")
    source = RandomSource(ids=config.vocab_size)
    return Trainer(programs, source, chosen, CADENCE, state, checkpoints, curve, lambda line: None)


def die_inside_checkpoint(count: int) -> None:
    """At the N-th rename: Orbax renames each of the two items of a checkpoint, and then the whole."""
    rename, seen = os.rename, [0]

    def killing(source: Any, target: Any, **more: Any) -> None:
        if "orbax-checkpoint-tmp" in Path(source).name:
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **more)

    os.rename = killing  # type: ignore[assignment]


def main(folder: Path, how: str, count: int) -> None:
    if how == "write":
        die_inside_checkpoint(count)
    devices, rows = (count, 8) if how == "devices" else (1, 2)
    run = trainer(folder, model_devices=devices, rows=rows)
    if how == "kill":
        run.milestones = {count: lambda state: os.kill(os.getpid(), signal.SIGKILL)}
    ending = run.run()
    run.checkpoints.close()
    losses = [line["loss"] for line in run.curve.lines() if line["split"] == "train"]
    print(json.dumps({"ending": ending, "step": run.state.step, "losses": losses}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int((*sys.argv, "1")[3]))
