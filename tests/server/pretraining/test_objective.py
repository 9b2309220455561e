"""The loss is the serving model's own, whoever shares the row, in any layout, attention or micro-batch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from chorus_server.model.attention import dense_attention
from chorus_server.model.layout import LAYOUTS
from chorus_server.model.t5 import arranged, build, random_tensors
from chorus_server.pretraining.attention import attention_of
from chorus_server.pretraining.objective import (
    PretrainingBatch,
    PretrainingSums,
    accumulate_gradients,
    measure_batch,
)
from tests.server.pretraining.pretraining_tools import RandomSource, architecture, programs_for, settings

CONFIG = architecture()
TENSORS = {name: jnp.asarray(array) for name, array in random_tensors(CONFIG, 0)}
PACKED = RandomSource(ids=CONFIG.vocab_size, segmented=True).rows("train", 0, 3)
FULL = RandomSource(ids=CONFIG.vocab_size).rows("train", 0, 4)


def batch_of(rows: Any) -> PretrainingBatch:
    return PretrainingBatch(rows.inputs, rows.targets, rows.input_segments, rows.target_segments)


def functions(layout: Any = "unrolled", dtype: Any = "float32") -> Any:
    return build(CONFIG, layout, dtype).functions


@cache
def measured(attention: Any = "dense") -> Any:
    """Compiled: batch -> the four sums."""
    program = jax.jit(partial(measure_batch, functions(), attention_of(attention)))
    return lambda batch: np.array(program(TENSORS, batch))


def test_the_loss_is_what_serving_scores() -> None:
    model = functions()
    loss, _, hits, tokens = measured()(batch_of(FULL))
    params = arranged(CONFIG, "unrolled", TENSORS)
    B, L = FULL.inputs.shape
    T = FULL.targets.shape[1]

    @jax.jit
    def scored(params: Any, ids: Any, targets: Any) -> Any:
        encoded = model.encode(params, jnp.zeros((1, CONFIG.d_model)), ids, jnp.full(B, L))
        return model.target_log_probabilities(
            params, encoded, jnp.full(B, L), targets[:, None], jnp.full((B, 1), T)
        )

    found = scored(params, FULL.inputs.astype(np.int32), FULL.targets.astype(np.int32))
    np.testing.assert_allclose(-loss, found.sum(), rtol=1e-6)
    assert tokens == B * T and 0 <= hits <= tokens


def alone(rows: Any) -> list[PretrainingBatch]:
    """The first examples of packed rows as rows of their own, and the second ones."""
    B = len(rows.inputs)
    return [
        PretrainingBatch(
            rows.inputs[rows.input_segments == segment].reshape(B, -1),
            rows.targets[rows.target_segments == segment].reshape(B, -1),
        )
        for segment in (1, 2)
    ]


def test_examples_of_one_row_do_not_see_each_other() -> None:
    single = sum(measured()(each) for each in alone(PACKED))
    for attention in ("dense", "fused"):
        np.testing.assert_allclose(measured(attention)(batch_of(PACKED)), single, rtol=2e-6)
    # The control: the same rows without segments are another loss.
    blind = replace(batch_of(PACKED), input_segments=None, target_segments=None)
    assert abs(measured()(blind)[0] - single[0]) > 1e-3 * single[0]


def test_padding_counts_for_nothing() -> None:
    def padded(array: Any, value: int) -> Any:
        return np.pad(array, ((0, 0), (0, 5)), constant_values=value)

    rows = batch_of(PACKED)
    wide = PretrainingBatch(
        padded(rows.inputs, 7),
        padded(rows.targets, 9),
        padded(rows.input_segments, 0),
        padded(rows.target_segments, 0),
    )
    np.testing.assert_allclose(measured()(wide), measured()(rows), rtol=2e-6)


@cache
def gradients(layout: Any, attention: Any = "dense", dtype: str = "float32") -> dict[str, Any]:
    empty = PretrainingSums({name: jnp.zeros_like(tensor) for name, tensor in TENSORS.items()}, *jnp.zeros(3))
    step = partial(accumulate_gradients, functions(layout, dtype), attention_of(attention), 1e-4)
    sums = jax.jit(step)(TENSORS, empty, batch_of(PACKED))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(sums)} == {"float32"}
    return {name: np.asarray(gradient) for name, gradient in sums.gradients.items()}


def test_layouts_give_the_same_gradients() -> None:
    whole = gradients("unrolled")
    assert set(whole) == set(TENSORS) and all(np.abs(each).max() > 0 for each in whole.values())
    other = gradients("scanned")
    for name, gradient in whole.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(other[name] / scale, gradient / scale, atol=2e-5, err_msg=name)


def test_bfloat16_gradients_are_near() -> None:
    whole, rough = gradients("unrolled"), gradients("unrolled", dtype="bfloat16")
    flat = [np.concatenate([each[name].ravel() for name in TENSORS]) for each in (whole, rough)]
    assert np.linalg.norm(flat[1] - flat[0]) < 0.05 * np.linalg.norm(flat[0])


def test_micro_batches_add_up() -> None:
    """Two rows twice are those two rows once, doubled."""
    programs = programs_for(settings())
    batch = programs.place(RandomSource(ids=CONFIG.vocab_size).rows("train", 0, 2))
    once = jax.device_get(programs.accumulate(TENSORS, programs.empty(), batch))
    twice = programs.accumulate(TENSORS, programs.accumulate(TENSORS, programs.empty(), batch), batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-6), once, twice)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_lowers_for_accelerators(platform: str, layout: Any) -> None:
    def shape(array: Any) -> Any:
        return jax.ShapeDtypeStruct(array.shape, array.dtype)  # type: ignore[no-untyped-call]

    step = jax.jit(partial(accumulate_gradients, functions(layout, "bfloat16"), dense_attention, 1e-4))
    sums = PretrainingSums(TENSORS, *jnp.zeros(3))
    exported = export.export(step, platforms=[platform])(
        *jax.tree.map(shape, (TENSORS, sums, batch_of(PACKED)))
    )
    assert exported.platforms == (platform,)
