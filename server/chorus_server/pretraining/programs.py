"""A run's device programs: create the optimiser's state, add a micro-batch, step, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.parameters import parameter_shapes
from chorus_server.model.t5 import build
from chorus_server.pretraining.attention import attention_of
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.mesh import rows_placement, state_placement, weight_placement
from chorus_server.pretraining.objective import (
    NamedTensors,
    PretrainingBatch,
    PretrainingSums,
    accumulate_gradients,
    measure_batch,
)
from chorus_server.pretraining.optimiser import learning_rate, make_optimiser
from chorus_server.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class StepMetrics:
    """Results of one step, as f32 scalars: mean cross-entropy of a target token, share of hits, the
    gradient's norm, the learning rate."""

    loss: Any
    accuracy: Any
    gradient_norm: Any = None
    learning_rate: Any = None


jax.tree_util.register_dataclass(StepMetrics)


@dataclass(frozen=True)
class PretrainingPrograms:
    """Jitted functions over placed arrays.

    Attributes:
        start: tensors -> optimiser state.
        empty: () -> PretrainingSums of zeros.
        accumulate: (tensors, sums, batch) -> sums; the sums are donated.
        apply: (tensors, state, sums) -> tensors, state, StepMetrics; tensors and state are donated.
        measure: (tensors, batch) -> cross-entropy, squared normaliser, hits, tokens.
        weights, rows: where tensors and batches live; None on one device.
    """

    start: Callable[[NamedTensors], Any]
    empty: Callable[[], PretrainingSums]
    accumulate: Callable[[NamedTensors, PretrainingSums, PretrainingBatch], PretrainingSums]
    apply: Callable[[NamedTensors, Any, PretrainingSums], tuple[NamedTensors, Any, StepMetrics]]
    measure: Callable[[NamedTensors, PretrainingBatch], tuple[jax.Array, ...]]
    weights: Any
    rows: Any

    def place(self, rows: Rows) -> PretrainingBatch:
        """Rows on their devices. Ids are as narrow as they are stored."""
        batch = PretrainingBatch(rows.inputs, rows.targets, rows.input_segments, rows.target_segments)
        placed: PretrainingBatch = jax.device_put(batch, self.rows)
        return placed


def make_programs(
    config: T5Config, settings: PretrainingSettings, mesh: DeviceMesh | None
) -> PretrainingPrograms:
    """The programs of a run. Each compiles when it is first called."""
    functions = build(config, settings.layout, settings.compute_dtype, mesh).functions
    attend, optimiser = attention_of(settings.attention), make_optimiser(settings)
    shapes = parameter_shapes(config)
    tensors = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}  # type: ignore[no-untyped-call]
    weights = state = rows = None
    if mesh is not None:
        weights, rows = weight_placement(mesh, config), rows_placement(mesh)
        state = state_placement(mesh, weights, shapes, jax.eval_shape(optimiser.init, tensors))
    sums = None if weights is None else PretrainingSums(weights, None, None, None)
    add = partial(accumulate_gradients, functions, attend, settings.z_loss)
    step = partial(_apply, optimiser, learning_rate(settings))
    return PretrainingPrograms(
        start=_jit(optimiser.init, state),
        empty=_jit(partial(_empty, shapes), sums),
        accumulate=_jit(add, sums, donate=(1,)),
        apply=_jit(step, None if weights is None else (weights, state, None), donate=(0, 1)),
        measure=jax.jit(partial(measure_batch, functions, attend)),
        weights=weights,
        rows=rows,
    )


def _jit(function: Any, placed: Any, donate: tuple[int, ...] = ()) -> Any:
    if placed is None:
        return jax.jit(function, donate_argnums=donate)
    return jax.jit(function, donate_argnums=donate, out_shardings=placed)


def _empty(shapes: dict[str, tuple[int, ...]]) -> PretrainingSums:
    zero = jnp.zeros((), jnp.float32)
    gradients = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
    return PretrainingSums(gradients, zero, zero + 0, zero + 0)


def _apply(
    optimiser: optax.GradientTransformation,
    rate: Any,
    tensors: NamedTensors,
    state: Any,
    sums: PretrainingSums,
) -> tuple[NamedTensors, Any, StepMetrics]:
    tokens = jnp.maximum(sums.tokens, 1)
    gradients = jax.tree.map(lambda gradient: gradient / tokens, sums.gradients)
    changes, new = optimiser.update(gradients, state, tensors)
    norm = jnp.sqrt(sum(jnp.vdot(each, each) for each in gradients.values()))
    standing = StepMetrics(sums.loss / tokens, sums.hits / tokens, norm, rate(steps_done(state)))
    return optax.apply_updates(tensors, changes), new, standing


def steps_done(state: Any) -> Any:
    """The optimiser's own count of steps: that of the learning rate, which is last in the chain."""
    return state[-1].count
