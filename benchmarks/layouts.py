"""Both layouts side by side: compile time, step time and XLA's temporary bytes of prefill, decode and a
prompt gradient.

    python benchmarks/layouts.py --size small --machine 2core-cpu

Random weights of a named size. Writes benchmarks/results/DATE-MACHINE-layouts.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from chorus_server.model.config import named_config
from chorus_server.model.layout import LAYOUTS
from chorus_server.model.t5 import Model, assemble, random_tensors

RESULTS = Path(__file__).parent / "results"


class Shapes:
    """Sizes of the measured programs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.batch, self.length = options.batch, options.length
        self.slots, self.new_tokens, self.steps = options.slots, options.new_tokens, options.steps
        self.train_batch, self.targets = options.train_batch, 8


Program = tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...], int]
"""Function, arguments (abstract or real), donated arguments, model steps a call."""


def programs(model: Model, shapes: Shapes) -> dict[str, Program]:
    functions, V = model.functions, model.config.padded_vocab_size
    rows = jnp.ones((100, model.config.d_model), model.dtype)
    ids = jnp.full((shapes.batch, shapes.length), 7, jnp.int32).at[:, :100].set(V + jnp.arange(100))
    lengths = jnp.full((shapes.batch,), shapes.length, jnp.int32)
    slot_lengths = jnp.full((shapes.slots,), shapes.length, jnp.int32)

    def decode(params: Any, cache: Any, memory: Any) -> Any:
        def body(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            step, cache, tokens = state
            positions = jnp.full((shapes.slots,), step, jnp.int32)
            logits, cache = functions.decode_step(params, cache, memory, slot_lengths, tokens, positions)
            return step + 1, cache, logits.argmax(axis=1).astype(jnp.int32)

        state = (jnp.int32(0), cache, jnp.zeros((shapes.slots,), jnp.int32))
        return jax.lax.while_loop(lambda state: state[0] < shapes.steps, body, state)

    def loss(rows: Any, params: Any) -> Any:
        few = slice(0, shapes.train_batch)
        encoded = functions.encode(params, rows, ids[few], lengths[few])
        targets = jnp.full((shapes.train_batch, 1, shapes.targets), 9, jnp.int32)
        whole = jnp.full((shapes.train_batch, 1), shapes.targets, jnp.int32)
        return -functions.target_log_probabilities(params, encoded, lengths[few], targets, whole).mean()

    cache = functions.init_cache(shapes.slots, shapes.new_tokens)
    memory = functions.init_memory(shapes.slots, shapes.length)
    return {
        "prefill": (functions.encode, (model.params, rows, ids, lengths), (), 1),
        "decode": (decode, (model.params, cache, memory), (1,), shapes.steps),
        "prompt_gradient": (jax.grad(loss), (rows.astype(jnp.float32), model.params), (), 1),
    }


def measure(program: Program, repeats: int) -> dict[str, Any]:
    function, arguments, donated, steps = program
    started = time.perf_counter()
    compiled = jax.jit(function, donate_argnums=donated).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    seconds = []
    for _ in range(repeats + 1):
        fresh = tuple(jax.tree.map(jnp.copy, a) if n in donated else a for n, a in enumerate(arguments))
        jax.block_until_ready(fresh)
        started = time.perf_counter()
        jax.block_until_ready(compiled(*fresh))
        seconds.append((time.perf_counter() - started) / steps)
    return {
        "compile_seconds": round(compile_seconds, 3),
        "step_milliseconds": {
            "minimum": round(min(seconds[1:]) * 1e3, 3),
            "median": round(statistics.median(seconds[1:]) * 1e3, 3),
        },
        "xla_temporary_bytes": memory.temp_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="decode steps a measured call")
    parser.add_argument("--train-batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config, shapes = named_config(options.size), Shapes(options)
    record: dict[str, Any] = {
        "what": "layouts", "date": datetime.now(UTC).date().isoformat(), "machine": options.machine,
        "platform": jax.default_backend(), "jax": jax.__version__, "size": options.size,
        "dtype": options.dtype, "load_average": os.getloadavg()[0], "shapes": vars(shapes), "layouts": {},
    }  # fmt: skip
    for layout in LAYOUTS:
        model = assemble(config, layout, options.dtype, random_tensors(config, 0))
        found = {name: measure(each, options.repeats) for name, each in programs(model, shapes).items()}
        record["layouts"][layout] = found
        print(layout, json.dumps(found, indent=2), flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{record['date']}-{options.machine}-layouts.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path.name)


if __name__ == "__main__":
    main()
