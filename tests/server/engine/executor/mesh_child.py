"""Run in a process of its own with simulated devices: the same plans and training steps on several meshes.

    python mesh_child.py '{"model": "wide", "layout": "unrolled", "meshes": [[1, 1], [2, 4]], "trained": []}'

A mesh is [data, model]; training runs on those in `trained`. Writes a JSON list, one object a mesh, on
standard output.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

from chorus_server.engine.executor import JaxExecutor, Program, compile_all, model_spec, programs
from chorus_server.engine.executor.sizes import program_bytes, tree_bytes
from chorus_server.engine.executor.testing import MemoryPrompts, lively_tensors
from chorus_server.engine.memory_plan import plan_memory
from chorus_server.engine.plans import (
    Admission,
    BlockShape,
    DecodePlan,
    Ladder,
    PrefillPlan,
    RowLoad,
    ScorePlan,
    StepPlan,
)
from chorus_server.engine.sampling import Sampling
from chorus_server.model.checkpoints import load_model
from chorus_server.model.checkpoints.chorus_format import write_chorus
from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DeviceMesh, device_mesh
from chorus_server.model.t5 import Model, assemble
from chorus_server.tuning.training.objective import LossConfig, TuningBatch
from chorus_server.tuning.training.optimiser import StepSettings
from chorus_server.tuning.training.programs import empty_sums, table
from chorus_server.tuning.training.shapes import TrainingShapes

WIDE = T5Config(
    name="wide", vocab_size=163, padded_vocab_size=168, d_model=40, d_kv=3, d_ff=48, num_heads=16,
    num_encoder_layers=1, num_decoder_layers=1,
)  # fmt: skip
TEXT = (17, 33, 5, 1)


def ladder_of(data: int) -> Ladder:
    """A batch of one does not divide over two: it has a bucket of its own there."""
    buckets = ((1, 16), (4, 16)) if data > 1 else ((4, 16),)
    return Ladder(buckets, (BlockShape(16, 8, 4), BlockShape(16, 8, 4)), ((2, 3),), 8)


def make_model(source: str, layout: Any, mesh: DeviceMesh | None) -> Model:
    if source != "wide":
        return load_model(source, layout=layout, mesh=mesh).model
    if mesh is None:
        return assemble(WIDE, layout, "float32", lively_tensors(WIDE, 0, 2.5))
    with TemporaryDirectory() as name:  # our own format, whose shards go from the file to their devices
        tensors = lively_tensors(WIDE, 0, 2.5)
        dtype = np.dtype(np.float32)
        write_chorus(Path(name), WIDE, tensors, dtype=dtype, vocabulary=None, source="random")
        return load_model(name, layout=layout, mesh=mesh).model


def plans(V: int, alone: tuple[int, int]) -> list[StepPlan]:
    """Loads, both modes, greedy, samples, beams, a release, targets, and a batch of one."""
    sampled = Sampling(8, temperature=0.7, top_k=9, top_p=0.9, seed=4_000_000_000)
    prompt = (V, V + 7, V + 2, V + 3, V + 4, V + 5)
    return [
        PrefillPlan(
            0,
            (4, 16),
            (TEXT, (*prompt, 9, 1), (4, 1), (*prompt[:3], 8, 21, 1)),
            (
                Admission(0, 0, (1,), Sampling(8)),
                Admission(1, 0, (2,), sampled),
                Admission(3, 0, (3,), Sampling(8)),
                Admission(2, 1, (1, 2), sampled),
                Admission(1, 1, (3, 0), Sampling(6, num_beams=2, length_penalty=1.3)),
            ),
            (RowLoad("p", (0, 7, 2, 3, 4, 5)),),
        ),
        DecodePlan(1, 0, "plain", 3),
        DecodePlan(2, 1, "grouped", 8),
        PrefillPlan(3, alone, ((*prompt, 30, 1),), (Admission(0, 0, (0,), Sampling(5)),)),
        DecodePlan(4, 0, "plain", 8, release=(1,)),
        ScorePlan(5, (4, 16), (TEXT, (*prompt, 1)), (((3, 1), (4, 1), (5, 6, 1)), ((8, 1),))),
        DecodePlan(6, 1, "grouped", 8),
    ]


def serve(model: Model, ladder: Ladder, compiled: Any) -> list[Any]:
    """What every plan answered, in plain data."""
    prompt = np.random.default_rng(0).normal(size=(6, model.config.d_model)).astype(np.float32)
    V, start = model.config.padded_vocab_size, model.config.decoder_start_id
    executor = JaxExecutor(model_spec(model, 16, 8), ladder, compiled, MemoryPrompts({"p": prompt}), V, start)
    return [asdict(executor.collect(executor.dispatch(plan))) for plan in plans(V, ladder.input_buckets[0])]  # type: ignore[call-overload]


def tuning_shapes(model: Model) -> TrainingShapes:
    groups = model.functions.groups
    return TrainingShapes(2, 3, model.config.d_model, 2, (16,), 3, 4, 2, 2, 4, groups=groups)


def train(model: Model, shapes: TrainingShapes, compiled: Any) -> dict[str, Any]:
    """Two steps of two prompts and an evaluation of both kinds."""
    V, generator = model.config.padded_vocab_size, np.random.default_rng(1)
    prompts = generator.normal(size=(2, 3, shapes.width)).astype(np.float32)
    moment, losses = np.zeros_like(prompts), []
    ids = generator.integers(2, 100, (4, 16)).astype(np.int32)
    ids[:, :3] = V + np.array([[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]])
    lengths = np.array([16, 9, 12, 5], np.int32)
    targets, counts = np.full((4, 3), 7, np.int32), np.array([3, 2, 3, 1], np.int32)
    keys = np.arange(8, dtype=np.uint32).reshape(4, 2)
    parts = []
    for some in ([0, 2], [1, 3]) if shapes.groups == 2 else ([0, 1, 2, 3],):  # a row of each prompt a group
        axis = np.zeros(shapes.tokens_at(16), np.int32)
        starts = np.cumsum([0, *lengths[some][:-1]]).astype(np.int32)
        for start, row in zip(starts, some, strict=True):
            axis[start : start + lengths[row]] = ids[row, : lengths[row]]
        parts.append(TuningBatch(axis, starts, lengths[some], targets[some], counts[some], keys[some]))
    batch = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    settings = StepSettings(*(np.full(2, value, np.float32) for value in (0.3, 1, 1e-5, 1, 0, 0)))
    config, params = LossConfig(np.float32(0.1), np.float32(1e-4)), model.params
    for _ in range(2):
        sums = compiled["accumulate[16]"](params, prompts, empty_sums(shapes), batch, config)
        prompts, moment, loss, _ = compiled["apply"](prompts, moment, sums, settings, np.ones(2, bool))
        losses.append(np.asarray(loss).tolist())
    labels = np.array([[[3, 1], [4, 1]]] * 4, np.int32), np.full((4, 2), 2, np.int32)
    scores = compiled["score[16]"](params, prompts, ids, lengths, *labels)
    greedy = compiled["greedy[16]"](params, prompts, ids, lengths)
    found = {"prompts": prompts, "losses": losses, "scores": scores, "greedy": greedy}
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def sizes(program: Program, executable: Any) -> dict[str, list[int]]:
    """Bytes of arguments, results and donated results, by XLA and by our arithmetic."""
    xla, ours = executable.memory_analysis(), program_bytes(program)
    theirs = [xla.argument_size_in_bytes, xla.output_size_in_bytes, xla.alias_size_in_bytes]
    return {"xla": theirs, "ours": [ours.arguments, ours.results, ours.donated]}


def largest_exchange(executable: Any) -> int:
    """Elements of the largest array that devices send each other."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    shapes = re.findall(rf"= \w+\[([\d,]*)\]\S* (?:{kinds})\(", executable.as_text())
    return max((int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes), default=0)


def control_exchange(every: list[Program]) -> int:
    """As `largest_exchange`, but where the model does not say that each device has its part of the logits."""
    (decode,) = [each for each in every if each.name == "decode[16x8x4,plain]"]
    jax.clear_caches()  # what was traced before
    with patch.object(DeviceMesh, "cut_logits", lambda mesh, logits: logits):
        return largest_exchange(decode.jit().lower(*decode.arguments).compile())


def on_mesh(source: str, layout: str, data: int, model_axis: int, trains: bool) -> dict[str, Any]:
    mesh = device_mesh(data, model_axis) if data * model_axis > 1 else None
    model = make_model(source, layout, mesh)
    ladder, shapes = ladder_of(data), tuning_shapes(model)
    every = [*programs(model_spec(model, 16, 8), ladder)]
    training = [*table(model.functions, model.params, shapes, dropping=False)] if trains else []
    compiled, trained = compile_all(every), compile_all(training)
    plan = plan_memory(model.config, ladder, 16, model.dtype, 2**40, mesh)
    rows, tokens, state = compiled["empty"]()
    return {
        "mesh": [data, model_axis],
        "answers": serve(model, ladder, compiled),
        "training": train(model, shapes, trained) if trains else None,
        "sizes": {each.name: sizes(each, compiled[each.name]) for each in every}
        | {f"tuning {each.name}": sizes(each, trained[each.name]) for each in training},
        "plan": {
            "weights": plan.weights,
            "state": plan.encoder_memory + plan.tokens + plan.slots,
            "rows": plan.prompt_rows,
        },
        "allocated": {
            "weights": tree_bytes(model.params),
            "state": tree_bytes((tokens, state)),
            "rows": tree_bytes(rows),
        },
        "largest_exchange": largest_exchange(compiled["decode[16x8x4,plain]"]),
        "control_exchange": control_exchange(every) if model_axis == 8 else None,
        "logits": 4 * model.config.padded_vocab_size,
        "devices_of_a_weight": len(jax.tree.leaves(model.params)[0].sharding.device_set),
    }


def main() -> None:
    wanted = json.loads(sys.argv[1])
    model, layout, trained = wanted["model"], wanted["layout"], wanted["trained"]
    found = [on_mesh(model, layout, *each, each in trained) for each in wanted["meshes"]]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
