"""How fast each program multiplies, beside what its products reach alone, in the same shapes and types.

    python -m benchmarks.rates                      flan-t5-small's shape, printed as JSON; three minutes
    python -m benchmarks.rates --programs decode training --out FILE

Random weights, matrices of the type that serving chooses. The products of a program are those that XLA has
left in it (one step of a loop counts once). Each distinct one is then compiled by itself. `alone` is the rate
of them all one after another; a program that does nothing else would have it. A time is the least of all
rounds, because other work only ever adds to it. `a_core` divides by processor seconds, which other work on
the machine hardly changes; the others divide by the clock's, and mean something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine
from chorus_server.engine.executor.build import model_spec
from chorus_server.engine.executor.compiling import compile_all
from chorus_server.engine.executor.programs import programs
from chorus_server.engine.ladder import build_ladder
from chorus_server.kept_memory import keep_freed_memory
from chorus_server.model.config import named_config
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags
from chorus_server.model.t5 import Model, assemble, random_tensors
from chorus_server.tuning.training.objective import LossConfig, TuningBatch
from chorus_server.tuning.training.programs import compile_programs, empty_sums
from chorus_server.tuning.training.shapes import TrainingShapes

LENGTH, NEW, SLOTS, STEPS = 128, 64, 64, 8
ROWS, PROMPT, TARGET = 8, 100, 3
SERVING = {
    "encode": f"encode[{ROWS * LENGTH},{ROWS},{LENGTH}]",
    "admission": f"admit[{LENGTH}x{NEW}x{SLOTS}]",
    "decode": f"decode[{LENGTH}x{NEW}x{SLOTS},plain]",
    "score": f"score[{ROWS},16,{LENGTH}]",
}
TYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "s32": jnp.int32, "s8": jnp.int8}


@dataclasses.dataclass(frozen=True)
class Product:
    """A product that XLA has left in a program: the operands' types and shapes, and the axes that go."""

    left: tuple[str, tuple[int, ...]]
    right: tuple[str, tuple[int, ...]]
    result: str
    axes: tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def gigaflop(self) -> float:
        (_, summed), (_, batch) = self.axes
        columns = [n for axis, n in enumerate(self.right[1]) if axis not in (*summed, *batch)]
        return 2 * float(np.prod(self.left[1])) * float(np.prod(columns)) / 1e9

    def compiled(self) -> Callable[[], Any]:
        operands = [
            jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32), TYPES[kind])
            for kind, shape in (self.left, self.right)
        ]
        program = jax.jit(
            lambda left, right: jax.lax.dot_general(
                left, right, self.axes, preferred_element_type=TYPES[self.result]
            )
        )
        return lambda: program(*operands)


def products_in(text: str) -> Counter[Product]:
    """The products in XLA's text of a compiled program."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    found: Counter[Product] = Counter()
    for line in text.splitlines():
        if line and not line[0].isspace():
            shapes = {}  # names are those of one computation
        made = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\w+)\[([\d,]*)\]\S* ([\w\-]+)\((.*)", line)
        if made is None:
            continue
        name, kind, sizes, operation, rest = made.groups()
        shapes[name] = kind, tuple(int(each) for each in sizes.split(",") if each)
        if operation != "dot":
            continue
        names = [
            each.split()[-1].lstrip("%") for each in rest.split(")")[0].split(", ") if "%" in each or each
        ]
        left, right = (shapes[each] for each in names if each in shapes)

        def axes(which: str, line: str = line) -> tuple[int, ...]:
            given = re.search(rf"{which}={{([\d,]*)}}", line)
            return tuple(int(each) for each in given[1].split(",") if each) if given else ()

        summed = axes("lhs_contracting_dims"), axes("rhs_contracting_dims")
        batch = axes("lhs_batch_dims"), axes("rhs_batch_dims")
        found[Product(left, right, kind, (summed, batch))] += 1
    return found


Times = tuple[float, float]
"""Seconds by the clock, and of all processors together."""


def least(work: Callable[[], Times], rounds: int) -> Times:
    """The least of some runs, each by itself."""
    work()
    clock, processor = zip(*(work() for _ in range(rounds)), strict=True)
    return min(clock), min(processor)


def timed(work: Callable[[], Any], times: int = 1) -> Times:
    """Of one of so many runs."""
    processor, clock = time.process_time(), time.perf_counter()
    for _ in range(times):
        result = work()
    jax.block_until_ready(result)
    return (time.perf_counter() - clock) / times, (time.process_time() - processor) / times


def serving(model: Model, wanted: list[str]) -> dict[str, tuple[Any, Callable[[], Any], int]]:
    """By name: the compiled program, a run of it, and how many steps that is."""
    ladder = build_ladder((LENGTH,), (1, ROWS), ((LENGTH, NEW, SLOTS),), ((ROWS, 16),))
    spec = model_spec(model, 512)
    every = {each.name: each for each in programs(spec, ladder)}
    chosen = {name: every[SERVING[name]] for name in wanted if name in SERVING}
    compiled = compile_all([*chosen.values(), every["empty"]])

    def run(name: str) -> Callable[[], Any]:
        program = chosen[name]

        def fresh(number: int, argument: Any) -> Any:
            if number == 0 and name != "admission":
                return model.params
            made = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), argument)
            if name == "decode" and number == 1:
                slots = made.slots
                settings = slots.settings | {"max_new_tokens": jnp.full((SLOTS,), NEW, jnp.int32)}
                slots = dataclasses.replace(slots, active=jnp.ones((SLOTS,), bool), settings=settings)
                made = dataclasses.replace(made, slots=slots)
            return made

        arguments = [fresh(number, each) for number, each in enumerate(program.arguments)]
        if name == "decode":
            arguments[-1] = np.int32(STEPS)

        def work() -> Times:
            given = [
                jax.tree.map(jnp.copy, each) if number in program.donate else each
                for number, each in enumerate(arguments)
            ]
            jax.block_until_ready(given)
            return timed(lambda: compiled[program.name](*given))

        return work

    return {
        name: (compiled[chosen[name].name], run(name), STEPS if name == "decode" else 1) for name in chosen
    }


def training(model: Model) -> tuple[Any, Callable[[], Any], int]:
    """A dispatch of a tuning job: 8 rows of 164 tokens, with dropout."""
    L, V = PROMPT + 64, model.config.padded_vocab_size
    shapes = TrainingShapes(
        prompts=1, prompt_length=PROMPT, width=model.config.d_model, rows_per_prompt=ROWS, input_lengths=(L,),
        target_length=TARGET, evaluation_rows=ROWS, labels=0, label_length=0, new_tokens=0,
    )  # fmt: skip
    program = compile_programs(model.functions, model.params, shapes, dropping=True).accumulate[L]
    random = np.random.default_rng(0)
    row = np.concatenate([np.arange(V, V + PROMPT), random.integers(3, 32000, L - PROMPT)])
    batch = TuningBatch(
        np.tile(row, ROWS).astype(np.int32), (np.arange(ROWS) * L).astype(np.int32),
        np.full(ROWS, L, np.int32), random.integers(3, 32000, (ROWS, TARGET)).astype(np.int32),
        np.full(ROWS, TARGET, np.int32), random.integers(0, 2**32, (ROWS, 2), dtype=np.uint32),
    )  # fmt: skip
    prompts = jnp.asarray(random.normal(0, 5, (1, PROMPT, model.config.d_model)), jnp.float32)
    loss = LossConfig(np.float32(0.1), np.float32(1e-4))

    def work() -> Times:
        sums = jax.block_until_ready(empty_sums(shapes))
        return timed(lambda: program(model.params, prompts, sums, batch, loss))

    return program, work, 1


def measured(program: Any, work: Callable[[], Times], steps: int, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    found = products_in(program.as_text())
    alone: dict[Product, Times] = {}
    for product in found:
        run = product.compiled()
        jax.block_until_ready(run())
        times = max(1, round(0.02 / timed(run)[0]))
        alone[product] = least(partial(timed, run, times), rounds)
    seconds, processor = (each / steps for each in least(work, rounds))
    flop = sum(product.gigaflop * count for product, count in found.items())
    together, core = (
        sum(alone[product][which] * count for product, count in found.items()) for which in (0, 1)
    )
    result: dict[str, Any] = {
        "milliseconds": round(seconds * 1e3, 2), "processor_milliseconds": round(processor * 1e3, 2),
        "gigaflop": round(flop, 2),
        "temporary_megabytes": round(program.memory_analysis().temp_size_in_bytes / 1e6, 1),
    }  # fmt: skip
    if not found:
        return result
    lines = [
        {
            "operands": f"{kind(product.left)} x {kind(product.right)}", "count": count,
            "gigaflop": round(product.gigaflop * count, 3),
            "gigaflops_alone": round(product.gigaflop / alone[product][0], 1),
            "a_core_alone": round(product.gigaflop / alone[product][1], 1),
        }
        for product, count in sorted(found.items(), key=lambda each: -alone[each[0]][1] * each[1])
    ]  # fmt: skip
    return result | {
        "gigaflops": round(flop / seconds, 1), "gigaflops_alone": round(flop / together, 1),
        "a_core": round(flop / processor, 1), "a_core_alone": round(flop / core, 1),
        "share_of_processor_time": round(core / processor, 3), "products": lines,
    }  # fmt: skip


def kind(operand: tuple[str, tuple[int, ...]]) -> str:
    return f"{operand[0]}[{','.join(map(str, operand[1]))}]"


def main() -> None:
    names = [*SERVING, "training"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", nargs="+", default=names, choices=names)
    parser.add_argument("--size", default="small")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    keep_freed_memory(one_heap=given.programs == ["training"])  # as a worker does, or a server
    matrix_dtype, _ = choose_matrix_dtype("auto", "float32", "cpu", processor_flags())
    config = named_config(given.size)
    model = assemble(config, "unrolled", "float32", random_tensors(config, 0), None, None, matrix_dtype)
    model = model.with_attention(choose_attention("auto", "float32")[0])
    runs: Mapping[str, Any] = serving(model, given.programs)
    if "training" in given.programs:
        runs = {**runs, "training": training(model)}
    result = {
        "what": "rates", "machine": machine(), "size": given.size, "matrix_dtype": matrix_dtype,
        "rounds": given.rounds,
        "programs": {name: measured(*runs[name], given.rounds) for name in given.programs},
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
