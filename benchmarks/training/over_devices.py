"""Training over several devices: how fast a step is, and what it takes of each device beside the plan.

    python benchmarks/training/over_devices.py --size xxl --mesh 1x8 --mesh 2x4     on real cards, in bf16
    python benchmarks/training/over_devices.py --toy                                four simulated devices

Weights are random, which changes no time. For each mesh it prints the milliseconds of a step of the job that
`chorus models plan` plans (one prompt of 100 rows, 8 examples of 512 tokens), examples a second, and bytes of
one device: the plan's, and what the device says is the most that was in use (real devices only). Writes
benchmarks/results/DATE-MACHINE-training_over_devices.json. Figures of simulated devices mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))
_WARM, _TIMED = 2, 10


def _mesh(text: str) -> tuple[int, int]:
    data, _, model = text.partition("x")
    return int(data), int(model)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="xl")
    parser.add_argument("--mesh", action="append", type=_mesh, help="groups x devices of one, as in 2x4")
    parser.add_argument("--layout", default="unrolled", choices=("unrolled", "scanned"))
    parser.add_argument("--rows", type=int, default=8, help="examples of a dispatch, and of a step")
    parser.add_argument("--input-tokens", type=int, default=512)
    parser.add_argument("--toy", action="store_true")
    return parser.parse_args()


def _job(width: int, rows: int, input_tokens: int) -> Any:
    import numpy as np

    from chorus_server.tuning.data.examples import Example
    from chorus_server.tuning.document.recipe import Recipe
    from chorus_server.tuning.training.run import PromptTask, TrainingRun

    generator = np.random.default_rng(0)
    recipe = Recipe(
        steps=10**8, batch_size=rows, micro_batch_size=rows, evaluate_every_steps=10**8,
        checkpoint_every_steps=10**8, max_input_tokens=input_tokens,
    )  # fmt: skip
    text = input_tokens - recipe.prompt_length
    examples = [
        Example(n, tuple(generator.integers(3, 100, text).tolist()), (5, 6, 1), ("",)) for n in range(rows)
    ]
    initial = generator.normal(size=(recipe.prompt_length, width)).astype(np.float32)
    return TrainingRun(0, (PromptTask(0, recipe, initial, examples, ()),))


def measure(options: argparse.Namespace, data: int, model_devices: int) -> dict[str, Any]:
    import jax

    from chorus_server.device_plan import Wanted, plan_devices
    from chorus_server.model.config import named_config
    from chorus_server.model.fused_attention import choose_attention
    from chorus_server.model.mesh import device_mesh
    from chorus_server.model.t5 import assemble, random_tensors
    from chorus_server.tuning.training.loop import TuningLoop
    from chorus_server.tuning.training.programs import compile_programs
    from chorus_server.tuning.training.shapes import shapes_for

    config, dtype = named_config(options.size), "float32" if options.toy else "bfloat16"
    mesh, devices = device_mesh(data, model_devices), data * model_devices
    model = assemble(config, options.layout, dtype, random_tensors(config, 0), mesh=mesh)
    model = model.with_attention(choose_attention("auto", dtype, devices=devices)[0])
    job = _job(config.d_model, options.rows, options.input_tokens)
    shapes = shapes_for(job, evaluation_rows=1, groups=data)
    started = time.perf_counter()
    loop = TuningLoop(
        job, compile_programs(model.functions, model.params, shapes, dropping=True), lambda ids: ""
    )
    compiled, times = time.perf_counter() - started, []
    while loop.state.step < _WARM + _TIMED:
        began, step = time.perf_counter(), loop.state.step
        while loop.state.step == step:
            loop.run_slice(1)
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times[_WARM:])
    wanted = Wanted(
        devices, data, dtype, dtype, options.layout, 8 * data, options.input_tokens, 64, 8, 8192, 1,
        options.rows, job.recipe.prompt_length,
    )  # fmt: skip
    plan, used = plan_devices(config, wanted), jax.devices()[0].memory_stats() or {}
    return {
        "mesh": f"{data} x {model_devices}", "milliseconds_a_step": round(1000 * seconds, 2),
        "examples_a_second": round(options.rows / seconds, 2), "compile_seconds": round(compiled, 1),
        "planned_bytes": plan.memory.weights + plan.training, "most_bytes": used.get("peak_bytes_in_use"),
    }  # fmt: skip


def main() -> None:
    options = _arguments()
    if options.toy:
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
        os.environ["JAX_PLATFORMS"] = "cpu"
        options.size, options.mesh, options.input_tokens = "small", [(2, 1), (2, 2)], 128
    from machine import machine, versions

    found = []
    for data, model_devices in options.mesh or [(1, 1)]:
        found.append(measure(options, data, model_devices))
        print(json.dumps(found[-1]), flush=True)
    where = machine()
    record = {
        "what": "training_over_devices", "date": datetime.now(UTC).date().isoformat(), "machine": where,
        "versions": versions(Path(sys.executable)), "size": options.size, "layout": options.layout,
        "rows": options.rows, "input_tokens": options.input_tokens, "meshes": found,
    }  # fmt: skip
    if not options.toy:
        path = HERE / "results" / f"{record['date']}-{where['name']}-training_over_devices.json"
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
