"""Run in a process of its own with eight simulated devices: what is chosen for a TPU is allocated on a mesh.

Writes a JSON object on standard output: the plan's bytes of one device, and those of each device.
"""

from __future__ import annotations

import json
import sys

import jax

from chorus_server.engine.executor import compile_all, model_spec, programs
from chorus_server.model.mesh import device_mesh
from chorus_server.model.t5 import build
from chorus_server.settings import Settings
from chorus_server.shapes import Deployment, shapes_of
from tests.server.engine.executor.mesh_child import WIDE


def main() -> None:
    mesh = device_mesh(2, 4)
    deployment = Deployment(WIDE, "tpu", 400_000_000, "bfloat16", "bfloat16", mesh)
    shapes = shapes_of(Settings(prompt_rows=64), deployment)
    plan = deployment.plan(shapes.ladder, shapes.prompt_rows)
    model = build(WIDE, "unrolled", "bfloat16", mesh)
    every = programs(model_spec(model, shapes.prompt_rows), shapes.ladder)
    leaves = jax.tree.leaves(compile_all(each for each in every if each.name == "empty")["empty"]())
    held = {device.id: 0 for device in jax.devices()}
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            held[shard.device.id] += shard.data.nbytes
    found = {
        "blocks": shapes.lists.blocks,
        "rows": shapes.lists.batch_rows,
        "limit": plan.limit,
        "total": plan.total,
        "planned": plan.resident - plan.weights,
        "held": list(held.values()),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
