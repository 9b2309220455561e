"""A decode step of a full block of 64 slots: its time, where it goes, and the bytes that it must read.

    python benchmarks/decode_step.py                            this checkout, printed as JSON
    python benchmarks/decode_step.py --before ../other/server   and another one's time beside it

Random weights of flan-t5-small's shape, and matrices of the type that serving chooses. Every slot is greedy
and reads 128 positions. Each way of asking (`VARIANTS`) is one dispatch of 8 steps. Processes take turns,
and both checkouts see the same machine. A part of the step is what the step loses when the part is made small
(`SMALLER`). A time is the least of all rounds, because other work only ever adds to it. Compiled programs are
kept in `--cache`, for the next run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTH, NEW, SLOTS, STEPS = 128, 64, 64, 8

VARIANTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 1.0},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "top_logprobs": {"top_logprobs": 5},
}
BEFORE = ("greedy", "temperature")
"""Variants that a checkout without the newer settings has too."""

SMALLER: dict[str, tuple[dict[str, int], int]] = {
    "feed-forward": ({"d_ff": 16}, LENGTH),
    "logits and choosing": ({"vocab_size": 128, "padded_vocab_size": 128}, LENGTH),
    "cross-attention's memory": ({}, 8),
}
"""Part of the step -> the config's fields that make it small, and the input length."""


def worker() -> None:
    """Answer each line of standard input, a variant or a part, with the seconds of one step."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from chorus_server.engine.executor.build import model_spec
    from chorus_server.engine.executor.compiling import compile_all
    from chorus_server.engine.executor.programs import programs
    from chorus_server.engine.plans import BlockShape, Ladder
    from chorus_server.model.config import named_config
    from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags
    from chorus_server.model.t5 import assemble, random_tensors

    matrix_dtype, _ = choose_matrix_dtype("auto", "float32", "cpu", processor_flags())
    made: dict[str, Callable[[dict[str, Any]], float]] = {}

    def build(smaller: dict[str, int], length: int) -> Callable[[dict[str, Any]], float]:
        full = named_config("small")
        known = {
            name: value
            for name, value in smaller.items()
            if name in {f.name for f in dataclasses.fields(full)}
        }
        config = dataclasses.replace(full, **known)
        model = assemble(config, "unrolled", "float32", random_tensors(config, 0), None, None, matrix_dtype)
        shape = BlockShape(length, NEW, SLOTS)
        ladder = Ladder(((1, length),), (shape,), (), 8)
        spec = model_spec(model, 8)
        wanted = [
            each
            for each in programs(spec, ladder)
            if each.name.startswith(("empty", "decode")) and "grouped" not in each.name
        ]
        compiled = compile_all(wanted)
        (decode,) = (compiled[each.name] for each in wanted if each.name.startswith("decode"))
        random, kept = np.random.default_rng(0), list[Any]()

        def seconds(settings: dict[str, Any]) -> float:
            state = compiled["empty"]()[2][0]
            if not kept:
                kept.append(
                    jax.tree.map(
                        lambda leaf: jnp.asarray(random.standard_normal(leaf.shape, np.float32), leaf.dtype),
                        state.memory,
                    )
                )
            memory = jax.tree.map(jnp.copy, kept[0])
            asked = {"max_new_tokens": NEW, "min_new_tokens": NEW, "seed": 7} | settings
            own = {
                name: np.full((SLOTS,), value, state.slots.settings[name].dtype)
                for name, value in asked.items()
            }
            slots = dataclasses.replace(
                state.slots, active=np.ones((SLOTS,), np.bool_), settings=state.slots.settings | own
            )
            state = dataclasses.replace(
                state, memory=memory, memory_lengths=np.full((SLOTS,), length, np.int32), slots=slots
            )
            state = jax.block_until_ready(jax.tree.map(jnp.asarray, state))
            release = np.zeros((SLOTS,), np.bool_)
            begun = time.perf_counter()
            jax.block_until_ready(decode(model.params, state, release, np.int32(STEPS)))
            return (time.perf_counter() - begun) / STEPS

        return seconds

    for line in sys.stdin:
        name = line.strip()
        if name == "facts":
            answer: Any = {**_facts(matrix_dtype), "device": jax.devices()[0].device_kind}
        else:
            part = name if name in SMALLER else ""
            if part not in made:
                made[part] = build(*SMALLER.get(part, ({}, LENGTH)))
            answer = made[part](VARIANTS.get(name, {}))
        print(json.dumps(answer), flush=True)


def _facts(matrix_dtype: str) -> dict[str, Any]:
    """What a step must read, and how fast this machine reads."""
    import jax
    import numpy as np

    from chorus_server.model.config import named_config
    from chorus_server.model.parameters import is_matrix, parameter_shapes

    config = named_config("small")
    size = {True: np.dtype(jax.numpy.dtype(matrix_dtype)).itemsize, False: 4}
    weights = sum(
        int(np.prod(shape)) * size[is_matrix(name)]
        for name, shape in parameter_shapes(config).items()
        if (name.startswith("decoder") or name == "head")
        and "cross_attention.key" not in name
        and "cross_attention.value" not in name
    )
    position = 2 * config.num_decoder_layers * config.num_heads * config.d_kv * 4
    state = SLOTS * position * (LENGTH + STEPS // 2)
    wide = jax.device_put(np.ones(64 * 2**20, np.float32))
    total = jax.jit(lambda x: x.sum())
    best = _least(lambda: total(wide))
    head = jax.numpy.ones((config.d_model, config.padded_vocab_size), matrix_dtype)
    rows = {count: jax.numpy.ones((count, config.d_model), matrix_dtype) for count in (SLOTS, 2 * SLOTS)}

    def product(axis: int) -> Any:
        """Rows times the head, whose own axis is the first or, transposed, the second."""
        return jax.jit(
            lambda left, right: jax.lax.dot_general(
                left, right, (((1,), (axis,)), ((), ())), preferred_element_type=jax.numpy.float32
            )
        )

    plain, turned, across = product(0), product(1), jax.numpy.copy(head.T)
    products = {
        f"{SLOTS} rows": _least(lambda: plain(rows[SLOTS], head)) * 1e3,
        f"{2 * SLOTS} rows": _least(lambda: plain(rows[2 * SLOTS], head)) * 1e3,
        f"{SLOTS} rows, weights transposed": _least(lambda: turned(rows[SLOTS], across)) * 1e3,
    }
    return {
        "head_product_milliseconds": products,
        "matrix_dtype": matrix_dtype,
        "weight_bytes": weights,
        "state_bytes": state,
        "read_bytes_per_second": wide.nbytes / best,
    }


def _least(work: Callable[[], Any], repeats: int = 12) -> float:
    """Seconds of the fastest of some runs."""
    work().block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        work().block_until_ready()
        best = min(best, time.perf_counter() - begun)
    return best


class Worker:
    """A process that measures one checkout."""

    def __init__(self, server: Path, cache: Path) -> None:
        environment = os.environ | {
            "PYTHONPATH": f"{server}:{server.parent}:{server.parent / 'clients'}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
        }
        command = [sys.executable, "-P", __file__, "--worker"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, name: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(name, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended: its error is above")
        return json.loads(line)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(before: Path | None, cache: Path, rounds: int, pairs: int) -> dict[str, Any]:
    here = Path(__file__).resolve().parent.parent / "server"
    workers = {"after": Worker(here, cache)}
    asked = {"after": [*VARIANTS, *SMALLER]}
    if before is not None:
        workers["before"], asked["before"] = Worker(before.resolve(), cache), [*BEFORE]
    for which, worker in workers.items():
        for name in asked[which]:
            worker.ask(name)  # compiles
    facts = workers["after"].ask("facts")
    taken: dict[str, dict[str, list[float]]] = {
        which: {name: [] for name in asked[which]} for which in workers
    }
    for turn in range(max(rounds, pairs)):
        for name in asked["after"]:
            if turn < (pairs if name in BEFORE else rounds):
                for which in list(workers) if turn % 2 else list(workers)[::-1]:
                    if name in asked[which]:
                        taken[which][name].append(workers[which].ask(name))
    for worker in workers.values():
        worker.end()
    found = {which: {name: min(times) * 1e3 for name, times in each.items()} for which, each in taken.items()}
    full, steps = found["after"]["greedy"], found["after"]
    parts = {name: full - steps[name] for name in SMALLER}
    needed = (facts["weight_bytes"] + facts["state_bytes"]) / facts["read_bytes_per_second"] * 1e3
    result = {
        "what": "decode_step",
        "block": {"input_length": LENGTH, "new_tokens": NEW, "slots": SLOTS},
        "rounds": rounds,
        "pairs": pairs,
        "facts": facts,
        "step_milliseconds": {name: steps[name] for name in VARIANTS},
        "parts_milliseconds": {
            **parts,
            "projections, norms, embedding and the rest": full - sum(parts.values()),
        },
        "reading_milliseconds": needed,
        "over_reading": full / needed,
    }
    if before is not None:
        result["before_milliseconds"] = found["before"]
        result["after_over_before"] = {name: steps[name] / found["before"][name] for name in BEFORE}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="the server folder of another checkout")
    parser.add_argument("--cache", type=Path, default=Path(".chorus/decode_step"))
    parser.add_argument("--rounds", type=int, default=12, help="of every variant and part")
    parser.add_argument("--pairs", type=int, default=24, help="rounds of what both checkouts have")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker()
        return
    from benchmarks.machine import machine

    result = {"machine": machine(), **measure(given.before, given.cache.resolve(), given.rounds, given.pairs)}
    print(json.dumps(result, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
