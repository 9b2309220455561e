"""How fast a training step is on this machine, by size and by way of computing: to plan a long run with.

    python benchmarks/pretraining/plan.py --machine 2core-cpu
    python benchmarks/pretraining/plan.py --machine h100 --gpu

First the ways (layout, dtype, attention, rows a dispatch) at the first size, then the other sizes in the
fastest way. Each line is a compile and `--seconds` of steps. Random ids; only the time is real. On a busy
machine look at step_cpu_seconds, of all threads: divided by the cores it is about an idle one's time. Writes
benchmarks/results/DATE-MACHINE-pretraining_plan.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chorus_server.model.config import T5Config
from chorus_server.model.parameters import parameter_count
from chorus_server.model.t5 import random_tensors
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.data.span_corruption import SpanShape, fitting_shape
from chorus_server.pretraining.programs import make_programs
from chorus_server.pretraining.settings import PretrainingSettings

RESULTS = Path(__file__).parents[1] / "results"
SENTINELS = 100


@dataclass(frozen=True)
class Way:
    """How the same numbers are computed."""

    layout: Any
    compute_dtype: Any
    attention: Any
    rows: int


def size_config(text: str) -> T5Config:
    """`256x4x8000`: width, layers of each stack, pieces. Heads of 64, feed-forward 2.5 times as wide."""
    width, layers, pieces = (int(part) for part in text.split("x"))
    rows = -(-(pieces + SENTINELS) // 128) * 128
    return T5Config(
        name=text, vocab_size=pieces + SENTINELS, padded_vocab_size=rows, d_model=width, d_kv=64,
        d_ff=width * 5 // 2, num_heads=width // 64, num_encoder_layers=layers, num_decoder_layers=layers,
    )  # fmt: skip


def step_flops(config: T5Config, shape: SpanShape, rows: int) -> float:
    """Operations forward and backward: matrix products and attention, 2 a multiply-add, times 3."""
    L, T, D, W = shape.input_length, shape.target_length, config.d_model, config.inner_width
    attention = 4 * D * W
    encoder = config.num_encoder_layers * L * (attention + 3 * D * config.d_ff + 2 * L * W)
    decoder = config.num_decoder_layers * (
        T * (attention + 3 * D * config.d_ff + 2 * T * W) + 2 * D * W * (T + L) + 2 * T * L * W
    )
    return 6.0 * rows * (encoder + decoder + T * D * config.padded_vocab_size)


def measure(config: T5Config, way: Way, options: argparse.Namespace) -> dict[str, Any]:
    """Compile, then micro-batches for `--seconds`, an optimiser step after each `--micro-batches`."""
    settings = PretrainingSettings(
        input_length=options.input_length, batch_size=way.rows * options.micro_batches,
        micro_batch_size=way.rows, layout=way.layout, compute_dtype=way.compute_dtype,
        attention=way.attention, warmup_steps=100,
    )  # fmt: skip
    shape = fitting_shape(options.input_length, 0.15, 3.0, SENTINELS)
    programs = make_programs(config, settings, None)
    tensors = {name: jax.device_put(array) for name, array in random_tensors(config, 0)}
    state = programs.start(tensors)
    ids = (
        np.random.default_rng(0)
        .integers(3, config.vocab_size, (way.rows, shape.chunk + 200))
        .astype(np.uint16)
    )
    batch = programs.place(Rows(ids[:, : shape.input_length], None, ids[:, -shape.target_length :], None))

    def step(tensors: Any, state: Any) -> tuple[Any, Any, Any]:
        sums = programs.empty()
        for _ in range(options.micro_batches):
            sums = programs.accumulate(tensors, sums, batch)
        return programs.apply(tensors, state, sums)

    started = time.perf_counter()
    tensors, state, standing = step(tensors, state)
    float(standing.loss)
    compile_seconds = time.perf_counter() - started
    steps, started, worked = 0, time.perf_counter(), time.process_time()
    while steps < 2 or time.perf_counter() - started < options.seconds:
        tensors, state, standing = step(tensors, state)
        float(standing.loss)
        steps += 1
    seconds = (time.perf_counter() - started) / steps
    cpu_seconds = (time.process_time() - worked) / steps
    rows = way.rows * options.micro_batches
    tokens = rows * (shape.input_length + shape.target_length)
    return {
        "size": config.name, "parameters": parameter_count(config), **vars(way), "steps": steps,
        "compile_seconds": round(compile_seconds, 1), "step_seconds": round(seconds, 4),
        "step_cpu_seconds": round(cpu_seconds, 4),
        "tokens_per_second": round(tokens / seconds),
        "million_tokens_per_hour": round(tokens / seconds * 0.0036, 1),
        "gflops": round(step_flops(config, shape, rows) / seconds / 1e9, 1),
    }  # fmt: skip


def ways(gpu: bool, rows: list[int]) -> list[Way]:
    first = Way("unrolled", "bfloat16" if gpu else "float32", "dense", rows[0])
    others = [replace(first, rows=count) for count in rows[1:]]
    others += [replace(first, attention="fused"), replace(first, layout="scanned")]
    if gpu:
        return [first, *others, replace(first, attention="cudnn"), replace(first, compute_dtype="float32")]
    return [first, *others, replace(first, compute_dtype="bfloat16")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", required=True)
    parser.add_argument("--gpu", action="store_true", help="the ways of a GPU: bf16, cuDNN, more rows")
    parser.add_argument("--sizes", default="256x4x8000,384x6x8000,512x8x8000")
    parser.add_argument("--rows", help="rows a dispatch, as 8,16,32 (64,128,256 with --gpu)")
    parser.add_argument("--input-length", type=int, default=512)
    parser.add_argument("--micro-batches", type=int, default=1, help="dispatches a step")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, without compiling")
    parser.add_argument("--only-first-way", action="store_true", help="sizes alone")
    options = parser.parse_args()
    rows = [int(part) for part in (options.rows or ("64,128,256" if options.gpu else "8,16,4")).split(",")]
    configs = [size_config(text) for text in options.sizes.split(",")]
    tried = ways(options.gpu, rows)[: 1 if options.only_first_way else None]
    found: list[dict[str, Any]] = []

    def add(config: T5Config, way: Way) -> None:
        try:
            line = measure(config, way, options)
        except (RuntimeError, ValueError, NotImplementedError) as error:  # out of memory, no such kernel
            line = {"size": config.name, **vars(way), "failed": f"{type(error).__name__}: {str(error)[:200]}"}
        found.append(line)
        print(json.dumps(line), flush=True)

    for way in tried:
        add(configs[0], way)
    done = [line for line in found if "failed" not in line]
    best = max(done, key=lambda line: line["tokens_per_second"])
    chosen = Way(best["layout"], best["compute_dtype"], best["attention"], best["rows"])
    for config in configs[1:]:
        add(config, chosen)
    record = {
        "what": "pretraining_plan", "date": datetime.now(UTC).date().isoformat(), "machine": options.machine,
        "device": jax.devices()[0].device_kind, "jax": jax.__version__, "input_length": options.input_length,
        "micro_batches": options.micro_batches, "load_average": os.getloadavg()[0], "lines": found,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{record['date']}-{options.machine}-pretraining_plan.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path.name)


if __name__ == "__main__":
    main()
