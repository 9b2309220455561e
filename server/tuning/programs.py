"""A job's device programs, compiled before it runs: while the job is *preparing*, off the engine's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from server.model.functions import Functions
from server.model.layout import PyTree
from server.tuning.answering import greedy_tokens, label_scores
from server.tuning.objective import Batch, Noise, Sums, accumulate, apply
from server.tuning.optimiser import Settings
from server.tuning.shapes import Shapes

Progress = Callable[[str], None]
"""Called with the name of each program when it is compiled."""


@dataclass(frozen=True)
class Programs:
    """Executables. Calling one never compiles.

    Attributes:
        accumulate, score, greedy: by input length L; see `objective` and `answering`.
        apply: the optimiser step.
    """

    shapes: Shapes
    functions: Functions
    params: PyTree
    accumulate: dict[int, Any]
    apply: Any
    score: dict[int, Any]
    greedy: dict[int, Any]

    @property
    def vocab_rows(self) -> int:
        """V: the id of the first prompt row."""
        return self.functions.config.padded_vocab_size


def compile_programs(
    functions: Functions,
    params: PyTree,
    shapes: Shapes,
    *,
    dropping: bool,
    training: bool = True,
    progress: Progress | None = None,
) -> Programs:
    """Compile everything that a job of these shapes calls.

    Args:
        params: the resident weights; read, never written.
        dropping: whether the recipe has dropout.
        training: False leaves out `accumulate`.
    """

    def compiled(name: str, function: Any, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        executable = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        if progress is not None:
            progress(name)
        return executable

    where = jax.tree.map(lambda leaf: _shape(leaf.shape, leaf.dtype), params)
    prompts = _floats(shapes.prompts, shapes.prompt_length, shapes.width)
    sums, settings = _sums(shapes), Settings(*[_floats(shapes.prompts)] * 5)
    noise, rows = Noise(_floats(), _floats()), shapes.evaluation_rows
    labels = _ints(rows, shapes.labels, shapes.label_length), _ints(rows, shapes.labels)
    adding: dict[int, Any] = {}
    scoring, decoding = {}, {}
    for L in shapes.input_lengths:
        if training:
            step, batch = partial(accumulate, functions, dropping), _batch(shapes, L)
            adding[L] = compiled(f"accumulate[{L}]", step, where, prompts, sums, batch, noise, donate=(2,))
        inputs = _ints(rows, L), _ints(rows)
        if shapes.labels:
            score = partial(label_scores, functions)
            scoring[L] = compiled(f"score[{L}]", score, where, prompts, *inputs, *labels)
        if shapes.new_tokens:
            greedy = partial(greedy_tokens, functions, shapes.new_tokens)
            decoding[L] = compiled(f"greedy[{L}]", greedy, where, prompts, *inputs)
    active = _shape((shapes.prompts,), jnp.bool_)
    stepping = compiled("apply", apply, prompts, prompts, sums, settings, active)
    return Programs(shapes, functions, params, adding, stepping, scoring, decoding)


def empty_sums(shapes: Shapes) -> Sums:
    """Zeros, on the device."""
    N, P, D = shapes.prompts, shapes.prompt_length, shapes.width
    return Sums(jnp.zeros((N, P, D)), jnp.zeros(N), jnp.zeros(N))


def _sums(shapes: Shapes) -> Sums:
    N, P, D = shapes.prompts, shapes.prompt_length, shapes.width
    return Sums(_floats(N, P, D), _floats(N), _floats(N))


def _batch(shapes: Shapes, L: int) -> Batch:
    B, T = shapes.rows, shapes.target_length
    keys = _shape((B, 2), jnp.uint32)
    return Batch(_ints(B, L), _ints(B), _ints(B, T), _ints(B), keys)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return _shape(shape, jnp.float32)


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return _shape(shape, jnp.int32)


def _shape(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
