"""Executor alone: step plans straight to the device, no queue and no HTTP, random weights of a real shape.

    python benchmarks/executor.py [--size small] [--dtype float32] [--layout unrolled] [--requests 256]

Prints requests a second of the labels load (inputs of 80 tokens with a 20-row prompt out of 64, answers of 3
tokens), the share of time in encode, admit and decode, milliseconds of one decode step of a full block for
each way of
choosing tokens, and what bounds it: bytes of weights and state that a step must read, and its floating-point
work, against what this machine was measured to copy and multiply just before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chorus_server.engine.executor import JaxExecutor, build_executor
from chorus_server.engine.executor.testing import MemoryPrompts
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.plans import Admission, DecodePlan, Ladder, PrefillPlan, RowLoad, ScorePlan
from chorus_server.engine.sampling import Sampling
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.parameters import parameter_shapes
from chorus_server.model.t5 import assemble, random_tensors

PROMPTS, PROMPT_ROWS, TEXT, ANSWER = 64, 20, 60, 3
LENGTH, NEW, SLOTS, B = 128, 64, 16, 8


def _ladder() -> Ladder:
    return build_ladder((LENGTH,), (1, B), ((LENGTH, NEW, SLOTS),), ((B, 16),))


def _seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Best of a few runs: other work on the machine only ever adds time."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def machine() -> dict[str, float]:
    """What this machine reaches on plain work of the decode step's kinds."""
    wide = np.ones(32 * 2**20, np.float32)
    total = jax.jit(lambda x: x.sum())
    left, right = np.ones((SLOTS, 512), np.float32), np.ones((512, 32128), np.float32)
    product = jax.jit(lambda a, b: a @ b)
    placed = jax.device_put(wide), jax.device_put(left), jax.device_put(right)
    read = _seconds(lambda: total(placed[0]).block_until_ready())
    multiply = _seconds(lambda: product(placed[1], placed[2]).block_until_ready())
    return {
        "read_gigabytes_per_second": wide.nbytes / read / 1e9,
        "head_product_gigaflops": 2 * SLOTS * 512 * 32128 / multiply / 1e9,
    }


def step_work(config: T5Config, size: int) -> dict[str, float]:
    """Bytes and operations of one decode step of a full block."""
    weights = sum(
        int(np.prod(shape))
        for name, shape in parameter_shapes(config).items()
        if (name.startswith("decoder") or name == "head") and "cross_attention.key" not in name
        and "cross_attention.value" not in name
    )  # fmt: skip
    inner = config.num_heads * config.d_kv
    state = 2 * config.num_decoder_layers * SLOTS * (LENGTH + NEW) * inner
    return {
        "megabytes": (weights + state) * size / 1e6,
        "gigaflop": 2 * SLOTS * weights / 1e9 + 2 * state / 1e9,
    }


class Bench:
    """Runs plans and keeps where the time went."""

    def __init__(self, executor: JaxExecutor, seed: int = 0) -> None:
        self.executor = executor
        self.random = np.random.default_rng(seed)
        self.step = 0
        self.seconds: dict[str, float] = {"prefill": 0.0, "decode": 0.0}

    def inputs(self, count: int) -> tuple[tuple[int, ...], ...]:
        V = self.executor.padded_vocab_size
        rows = []
        for _ in range(count):
            first = V + PROMPT_ROWS * int(self.random.integers(PROMPTS))
            text = self.random.integers(3, min(32000, V - 192), size=TEXT - 1).tolist()
            rows.append((*range(first, first + PROMPT_ROWS), *text, 1))
        return tuple(rows)

    def load_prompts(self) -> None:
        for prompt in range(PROMPTS):
            rows = tuple(range(PROMPT_ROWS * prompt, PROMPT_ROWS * (prompt + 1)))
            self.run(PrefillPlan(0, (1, LENGTH), ((1,),), (), (RowLoad(str(prompt), rows),)))

    def run(self, plan: Any) -> Any:
        return self.executor.collect(self.executor.dispatch(plan))

    def timed(self, kind: str, plan: Any) -> None:
        """Run a plan to its end, on the device too, and book its time."""
        started = time.perf_counter()
        self.run(plan)
        self.wait()
        self.seconds[kind] += time.perf_counter() - started

    def wait(self) -> None:
        jax.block_until_ready([block.state for block in self.executor._blocks])

    def fill(self, sampling: Sampling, width: int = 1, kind: str | None = None) -> None:
        """Occupy every slot of the block."""
        groups = [tuple(range(first, first + width)) for first in range(0, SLOTS, width)]
        for start in range(0, len(groups), B):
            batch = groups[start : start + B]
            admissions = tuple(Admission(row, 0, group, sampling) for row, group in enumerate(batch))
            plan = PrefillPlan(self.step, (B, LENGTH), self.inputs(len(batch)), admissions)
            if kind is None:
                self.run(plan)
            else:
                self.timed(kind, plan)
        self.wait()

    def labels(self, requests: int) -> dict[str, float]:
        """The labels load, generated: full blocks of short answers, one after another."""
        sampling = Sampling(ANSWER, min_new_tokens=ANSWER)
        self.seconds = {"prefill": 0.0, "decode": 0.0}
        started = time.perf_counter()
        for _ in range(requests // SLOTS):
            self.fill(sampling, kind="prefill")
            self.timed("decode", DecodePlan(self.step, 0, "plain", ANSWER))
        seconds = time.perf_counter() - started
        done = requests // SLOTS * SLOTS
        encode = self.encode_seconds() * done / B
        return {
            "requests_per_second": done / seconds,
            "encode_share": encode / seconds,
            "admit_share": max(0.0, self.seconds["prefill"] - encode) / seconds,
            "decode_share": self.seconds["decode"] / seconds,
        }

    def encode_seconds(self) -> float:
        rows = self.inputs(B)
        return _seconds(lambda: self.run(PrefillPlan(0, (B, LENGTH), rows, ())))

    def score_seconds(self) -> float:
        """A full batch of four labels of two tokens, encoding included."""
        rows, targets = self.inputs(B), (((5, 1), (6, 1), (7, 1), (8, 1)),) * B
        return _seconds(lambda: self.run(ScorePlan(0, (B, LENGTH), rows, targets)))

    def step_milliseconds(self, mode: Any, width: int = 1, **settings: Any) -> float:
        """One decode step of a full block."""
        steps, best = 16, float("inf")
        for _ in range(3):
            self.fill(Sampling(NEW, min_new_tokens=NEW, **settings), width)
            started = time.perf_counter()
            self.run(DecodePlan(0, 0, mode, steps))
            best = min(best, time.perf_counter() - started)
        return best / steps * 1e3


def measure(size: str, dtype: str, layout: Any, requests: int) -> dict[str, Any]:
    config = named_config(size)  # type: ignore[arg-type]
    model = assemble(config, layout, dtype, random_tensors(config, 0))
    random = np.random.default_rng(1)
    rows = {
        str(p): random.normal(size=(PROMPT_ROWS, config.d_model)).astype(model.dtype) for p in range(PROMPTS)
    }
    started = time.perf_counter()
    executor, plan = build_executor(model, _ladder(), PROMPTS * PROMPT_ROWS, MemoryPrompts(rows))
    compiling = time.perf_counter() - started
    bench = Bench(executor)
    bench.load_prompts()
    work = step_work(config, np.dtype(model.dtype).itemsize)
    here = machine()
    return {
        "shape": {"size": size, "dtype": dtype, "layout": layout, "block": [LENGTH, NEW, SLOTS], "batch": B},
        "device": str(jax.devices()[0].device_kind),
        "compile_seconds": compiling,
        "programs": len(executor.compiled.executables),
        "temporary_megabytes": plan.temporaries / 1e6,
        "machine": here,
        "labels": bench.labels(requests),
        "score_requests_per_second": B / bench.score_seconds(),
        "encode_milliseconds": bench.encode_seconds() * 1e3,
        "step_work": work,
        "step_bound_milliseconds": {
            "memory": work["megabytes"] / here["read_gigabytes_per_second"],
            "products": work["gigaflop"] / here["head_product_gigaflops"] * 1e3,
        },
        "step_milliseconds": {
            "greedy": bench.step_milliseconds("plain"),
            "temperature": bench.step_milliseconds("plain", temperature=1.0),
            "top_k": bench.step_milliseconds("plain", temperature=1.0, top_k=40),
            "top_k_and_top_p": bench.step_milliseconds("plain", temperature=1.0, top_k=40, top_p=0.9),
            "beams_of_4": bench.step_milliseconds("grouped", 4, num_beams=4),
            "samples_of_4": bench.step_milliseconds("grouped", 4, temperature=1.0),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--layout", default="unrolled", choices=["unrolled", "scanned"])
    parser.add_argument("--requests", type=int, default=256)
    given = parser.parse_args()
    result = measure(given.size, given.dtype, given.layout, given.requests)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
