"""A decode step of a full block of 64 slots: its time, where it goes, and the bytes that it must read.

    python benchmarks/decode_step.py                            this checkout, printed as JSON
    python benchmarks/decode_step.py --before ../other/server   and another one's time beside it

Random weights of flan-t5-small's shape, and matrices of the type that serving chooses. Every slot is greedy
and reads 128 positions. Each way of asking (`VARIANTS`) is one dispatch of 8 steps. Processes take turns,
and both checkouts see the same machine. A part of the step is what the step loses when the part is made small
(`SMALLER`); `traced_milliseconds` has the same step as XLA's own trace tells it, by what its operations read.
A time is the least of all rounds, because other work only ever adds to it. Compiled programs are kept in
`--cache`, for the next run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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

    from chorus_server.kept_memory import keep_freed_memory
    from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags

    keep_freed_memory()  # as a server does
    matrix_dtype, _ = choose_matrix_dtype("auto", "float32", "cpu", processor_flags())
    made: dict[str, Dispatch] = {}
    for line in sys.stdin:
        name = line.strip()
        if name == "facts":
            answer: Any = {**_facts(matrix_dtype), "device": jax.devices()[0].device_kind}
        elif name == "trace":
            answer = min((_traced(made[""]) for _ in range(3)), key=lambda each: sum(each.values()))
        else:
            part = name if name in SMALLER else ""
            if part not in made:
                made[part] = Dispatch(part, matrix_dtype)
            answer = made[part](VARIANTS.get(name, {}))
        print(json.dumps(answer), flush=True)


class Dispatch:
    """The compiled program with a part made small (or none), and a full block's state.

    Attributes:
        text: of the program as XLA compiled it.
    """

    def __init__(self, part: str, matrix_dtype: Any) -> None:
        import jax
        import jax.numpy as jnp
        import numpy as np

        from chorus_server.engine.executor.build import model_spec
        from chorus_server.engine.executor.compiling import compile_all
        from chorus_server.engine.executor.programs import programs
        from chorus_server.engine.plans import BlockShape, Ladder
        from chorus_server.model.config import named_config
        from chorus_server.model.t5 import assemble, random_tensors

        smaller, self._length = SMALLER.get(part, ({}, LENGTH))
        config = _with(named_config("small"), smaller)
        model = assemble(config, "unrolled", "float32", random_tensors(config, 0), None, None, matrix_dtype)
        shape = BlockShape(self._length, NEW, SLOTS)
        spec = model_spec(model, 8)
        wanted = [
            each
            for each in programs(spec, Ladder(((1, self._length),), (shape,), (), 8))
            if each.name.startswith(("empty", "decode")) and "grouped" not in each.name
        ]
        compiled = compile_all(wanted)
        (self._decode,) = (compiled[each.name] for each in wanted if each.name.startswith("decode"))
        self.text: str = self._decode.as_text()
        self._params, self._empty, random = model.params, compiled["empty"], np.random.default_rng(0)
        self._memory = jax.tree.map(
            lambda leaf: jnp.asarray(random.standard_normal(leaf.shape, np.float32), leaf.dtype),
            self._empty()[2][0].memory,
        )

    def __call__(
        self, settings: dict[str, Any], watched: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> float:
        """Seconds of one step; `watched` is entered around the dispatch alone."""
        import jax
        import jax.numpy as jnp
        import numpy as np

        state = self._empty()[2][0]
        asked = {"max_new_tokens": NEW, "min_new_tokens": NEW, "seed": 7} | settings
        own = {
            name: np.full((SLOTS,), value, state.slots.settings[name].dtype) for name, value in asked.items()
        }
        slots = dataclasses.replace(
            state.slots, active=np.ones((SLOTS,), np.bool_), settings=state.slots.settings | own
        )
        state = dataclasses.replace(
            state,
            memory=jax.tree.map(jnp.copy, self._memory),
            memory_lengths=np.full((SLOTS,), self._length, np.int32),
            slots=slots,
        )
        state = jax.block_until_ready(jax.tree.map(jnp.asarray, state))
        release = np.zeros((SLOTS,), np.bool_)
        with watched():
            begun = time.perf_counter()
            jax.block_until_ready(self._decode(self._params, state, release, np.int32(STEPS)))
            return (time.perf_counter() - begun) / STEPS


def _with(config: Any, fields: dict[str, int]) -> Any:
    """The config with those of the fields that this checkout's has."""
    own = {each.name for each in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: value for name, value in fields.items() if name in own})


def _traced(dispatch: Dispatch) -> dict[str, float]:
    """Milliseconds of a step by kind, from a trace of a dispatch. What ran at the same time counts twice."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        dispatch({}, lambda: jax.profiler.trace(folder))
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        kinds, found = _kinds(dispatch.text), Counter[str]()
        for event in (event for plane in planes for line in plane.lines for event in line.events):
            if event.name in kinds:
                found[kinds[event.name]] += event.duration_ns / 1e6 / STEPS
    return dict(found.most_common())


def _kinds(text: str) -> dict[str, str]:
    """What each operation of the step's loop is for, by its name in XLA's text of the program."""
    from chorus_server.model.config import named_config

    config = named_config("small")
    D, F, V, HK, H = (
        config.d_model,
        config.d_ff,
        config.padded_vocab_size,
        config.inner_width,
        config.num_heads,
    )
    matrices = {
        (D, V): "product: logits",
        (D, F): "products: feed-forward",
        (F, D): "products: feed-forward",
        (D, HK): "products: attention's matrices",
        (HK, D): "products: attention's matrices",
        (SLOTS, H, LENGTH, config.d_kv): "reading the encoder memory",
        (SLOTS, H, NEW, config.d_kv): "reading the self-attention cache",
    }
    line = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = \(?\w+\[([\d,]*)\]\S* ([\w-]+)\((.*)$", re.MULTILINE)
    heads = re.compile(r"^%([\w.-]+) \(.*?^}", re.MULTILINE | re.DOTALL)
    operations = {each[1]: each for each in line.finditer(text)}
    bodies = {each[1]: each[0] for each in heads.finditer(text)}
    shape = {name: tuple(map(int, filter(None, each[2].split(",")))) for name, each in operations.items()}
    kinds: dict[str, str] = {}
    for name, each in operations.items():
        if each[3] in ("while", "conditional", "call", "parameter", "get-tuple-element", "tuple"):
            continue
        called = re.search(r"calls=%([\w.-]+)", each[4])
        inside = bodies.get(called[1], "") if called else ""
        dot = re.search(r" dot\(%[\w.-]+, %([\w.-]+)\)", inside or each[0])
        near = [shape[name], *(shape.get(other, ()) for other in re.findall(r"%([\w.-]+)", each[4]))]
        if dot:
            kinds[name] = matrices.get(shape[dot[1]], "another product")
        elif any(size[:1] == (SLOTS,) and V in (size[-1], size[-1] * size[1 % len(size)]) for size in near):
            kinds[name] = "choosing a token"
        elif (SLOTS, H, NEW, config.d_kv) in near:
            kinds[name] = "writing the self-attention cache"
        elif any(size[:2] == (SLOTS, H) for size in near):
            kinds[name] = "softmax, and what lies between attention's products"
        else:
            kinds[name] = "norms, activations, embedding and the rest"
    return kinds


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
    facts, traced = workers["after"].ask("facts"), workers["after"].ask("trace")
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
        "traced_milliseconds": traced,
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
