"""A job's device programs, compiled off the engine's thread while the job is *preparing*."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chorus_server.engine.executor.places import Places, placed
from chorus_server.engine.executor.programs import Program
from chorus_server.model.functions import Functions
from chorus_server.model.layout import PyTree
from chorus_server.tuning.training.answering import greedy_answers, label_scores
from chorus_server.tuning.training.objective import LossConfig, TuningBatch, TuningSums, accumulate, apply
from chorus_server.tuning.training.optimiser import StepSettings
from chorus_server.tuning.training.shapes import TrainingShapes

Progress = Callable[[str, float], None]
"""Called with the name of each compiled program, and the seconds that it took."""
_AT_ONCE = 2
"""Programs compiled at the same time; few, because the server answers requests meanwhile."""


@dataclass(frozen=True)
class TuningPrograms:
    """Executables, which never compile when they are called.

    Attributes:
        accumulate, score, greedy: by input length L; see `objective` and `answering`.
        apply: the optimiser step.
    """

    shapes: TrainingShapes
    functions: Functions
    params: PyTree
    apply: Any
    accumulate: dict[int, Any] = field(default_factory=dict)
    score: dict[int, Any] = field(default_factory=dict)
    greedy: dict[int, Any] = field(default_factory=dict)

    @property
    def vocab_rows(self) -> int:
        """V: the id of the first prompt row."""
        return self.functions.config.padded_vocab_size


def compile_programs(
    functions: Functions,
    params: PyTree,
    shapes: TrainingShapes,
    *,
    dropping: bool,
    training: bool = True,
    progress: Progress | None = None,
    known: dict[Any, Any] | None = None,
) -> TuningPrograms:
    """Compile all programs that a job of these shapes needs.

    Args:
        params: the resident weights, which are only read.
        dropping: whether the recipe has dropout.
        training: if False, `accumulate` is left out.
        known: what was compiled before for these functions, weights and dropout; gets what is compiled now.
    """
    known = {} if known is None else known
    by_key = {
        _shapes_of(each): each
        for each in table(functions, params, shapes, dropping=dropping, training=training)
    }
    _compile({key: each for key, each in by_key.items() if key not in known}, known, progress)
    by_kind: dict[str, dict[int, Any]] = defaultdict(dict)
    for key, program in by_key.items():
        kind, _, length = program.name.rstrip("]").partition("[")
        by_kind[kind][int(length or 0)] = known[key]
    (apply_,) = by_kind.pop("apply").values()
    return TuningPrograms(shapes, functions, params, apply=apply_, **by_kind)


def _compile(programs: Mapping[Any, Program], known: dict[Any, Any], progress: Progress | None) -> None:
    """Compile a few at a time, since XLA releases the interpreter lock. Tracing does not release it, so this
    thread does that meanwhile, one program after another."""

    def compiled(lowered: Any, seconds: float) -> tuple[Any, float]:
        started = time.perf_counter()
        return lowered.compile(), time.perf_counter() - started + seconds

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="chorus-tuning-compile") as pool:
        try:
            keys: dict[Future[tuple[Any, float]], Any] = {}
            for key, program in programs.items():
                started = time.perf_counter()
                lowered = program.jit().lower(*program.arguments)
                took = time.perf_counter() - started
                # In a copy of this context, in which the cause of the compile is known.
                keys[pool.submit(copy_context().run, compiled, lowered, took)] = key
            for future in as_completed(keys):
                known[keys[future]], seconds = future.result()
                if progress is not None:
                    progress(programs[keys[future]].name, seconds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def table(
    functions: Functions, params: PyTree, shapes: TrainingShapes, *, dropping: bool, training: bool = True
) -> Iterator[Program]:
    """Every program of a job. On a mesh rows are divided over `data`; prompts, their gradients and results
    have a copy on each device.

    Raises:
        ValueError: the shapes are not for as many groups of devices as the model has.
    """
    if shapes.groups != functions.groups:
        raise ValueError(f"shapes for {shapes.groups} groups of devices, the model has {functions.groups}")
    places = Places(functions.mesh)

    def whole(tree: Any) -> Any:
        return placed(tree, places.whole)

    N, rows = shapes.prompts, shapes.evaluation_rows
    where = jax.tree.map(lambda leaf: _shape(leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)), params)
    prompts = whole(_floats(N, shapes.prompt_length, shapes.width))
    sums, loss = whole(jax.eval_shape(partial(empty_sums, shapes))), whole(LossConfig(_floats(), _floats()))
    cut = partial(jax.tree.map, partial(_cut_rows, places))
    labels = cut((_ints(rows, shapes.labels, shapes.label_length), _ints(rows, shapes.labels)))
    for L in shapes.input_lengths:
        if training:
            step = partial(accumulate, functions, L, dropping)
            arguments = (where, prompts, sums, cut(_batch(shapes, L)), loss)
            program = Program(f"accumulate[{L}]", step, arguments, sums, donate=(2,))
            yield program if dropping else replace(program, reads=_reads_no_dropout)
        inputs = cut((_ints(rows, L), _ints(rows)))
        if shapes.labels:
            scores = whole(_floats(rows, shapes.labels))
            score = partial(label_scores, functions)
            yield Program(f"score[{L}]", score, (where, prompts, *inputs, *labels), scores)
        if shapes.new_tokens:
            said = whole(_ints(rows, shapes.new_tokens))
            greedy = partial(greedy_answers, functions, shapes.new_tokens)
            yield Program(f"greedy[{L}]", greedy, (where, prompts, *inputs), said)
    flags = whole(_shape((N,), jnp.bool_))
    settings = whole(StepSettings(*[_floats(N)] * 6))
    results = (prompts, prompts, whole(_floats(N)), flags)
    yield Program("apply", apply, (prompts, prompts, sums, settings, flags), results)


def _shapes_of(program: Program) -> tuple[Any, ...]:
    """Identifies a program among those of the same functions, weights and dropout."""
    leaves = jax.tree.leaves((program.arguments[1:], program.results))
    return (program.name, *((leaf.shape, str(leaf.dtype)) for leaf in leaves))


def _cut_rows(places: Places, leaf: Any) -> Any:
    return _shape(leaf.shape, leaf.dtype, places.batch(leaf.shape[0], len(leaf.shape) - 1))


def _reads_no_dropout(path: tuple[str, ...]) -> bool:
    return path not in (("3", "keys"), ("4", "dropout_rate"))


def empty_sums(shapes: TrainingShapes) -> TuningSums:
    """Zeros, on the device."""
    N, P, D = shapes.prompts, shapes.prompt_length, shapes.width
    return TuningSums(jnp.zeros((N, P, D)), jnp.zeros(N), jnp.zeros(N))


def _batch(shapes: TrainingShapes, L: int) -> TuningBatch:
    tokens, B = (shapes.groups * each for each in (shapes.tokens_at(L), shapes.prompts * shapes.rows_at(L)))
    keys = _shape((B, 2), jnp.uint32)
    return TuningBatch(_ints(tokens), _ints(B), _ints(B), _ints(B, shapes.target_length), _ints(B), keys)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return _shape(shape, jnp.float32)


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return _shape(shape, jnp.int32)


def _shape(shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # type: ignore[no-untyped-call]
