"""Rows end to end train as padded rows do, and gradients multiply bf16 matrices in bf16."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor.testing import tiny_model
from chorus_server.model import layers
from chorus_server.model.dropout import Dropout
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.objective import LossConfig, TuningBatch, TuningSums, accumulate, apply
from chorus_server.tuning.training.optimiser import settings_at, update
from chorus_server.tuning.training.programs import empty_sums
from chorus_server.tuning.training.shapes import TrainingShapes

L, T, LOSS = 16, 3, LossConfig(np.float32(0.3), np.float32(1e-4))
LENGTHS, TARGETS = np.array([16, 0, 9, 5], np.int32), np.array([3, 0, 2, 1], np.int32)
"""Of two rows of each of two prompts. One row is not used."""


def _inputs(model: Any) -> tuple[Any, Any, TuningBatch, Any]:
    """Prompts, empty sums, a batch with room at the end of its axis, and its rows padded."""
    generator = np.random.default_rng(3)
    V, D = model.config.padded_vocab_size, model.config.d_model
    rows = generator.integers(2, 60, (4, L)).astype(np.int32)
    rows[:, :3] = V + np.array([[0, 1, 2]] * 2 + [[3, 4, 5]] * 2)
    axis, starts = np.zeros(40, np.int32), np.array([0, 16, 16, 25], np.int32)
    for row, start, length in zip(rows, starts, LENGTHS, strict=True):
        axis[start : start + length] = row[:length]
    targets = generator.integers(2, 60, (4, T)).astype(np.int32)
    keys = generator.integers(0, 2**31, (4, 2)).astype(np.uint32)
    prompts = generator.normal(size=(2, 3, D)).astype(np.float32)
    sums = empty_sums(TrainingShapes(2, 3, D, 2, (L,), T, 4, 0, 0, 0))
    return prompts, sums, TuningBatch(axis, starts, LENGTHS, targets, TARGETS, keys), rows


@pytest.mark.parametrize("layout", ["unrolled", "scanned"])
def test_rows_end_to_end_train_as_padded_rows_do(layout: Any) -> None:
    model = tiny_model(layout=layout)
    functions = model.functions
    prompts, sums, batch, ids = _inputs(model)

    def padded(prompts: Any) -> Any:
        dropout = Dropout(
            jax.random.wrap_key_data(batch.keys, impl="threefry2x32"), jnp.asarray(LOSS.dropout_rate)
        )
        table = prompts.reshape(-1, prompts.shape[-1])
        lengths, targets = jnp.asarray(LENGTHS), jnp.asarray(batch.targets[:, None])
        encoded = functions.encode(model.params, table, jnp.asarray(ids), lengths, dropout)
        logits = functions.decode_targets(
            model.params, encoded, lengths, targets, jnp.asarray(TARGETS[:, None]), dropout
        )[:, 0]
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, batch.targets[:, :, None], axis=-1)[:, :, 0]
        real = jnp.arange(T)[None] < TARGETS[:, None]
        return jnp.where(real, normaliser - chosen + LOSS.z_loss * normaliser**2, 0).sum()

    found = jax.jit(partial(accumulate, functions, L, True))(model.params, prompts, sums, batch, LOSS)
    known = jax.jit(jax.grad(padded))(prompts)
    scale = float(np.abs(known).max())
    np.testing.assert_allclose(found.gradients, known, rtol=0, atol=1e-5 * scale)
    assert float(found.tokens.sum()) == TARGETS.sum()
    # The control: other rows make another gradient.
    other = batch.ids.copy()
    other[5] += 1
    moved = jax.jit(partial(accumulate, functions, L, True))(
        model.params, prompts, sums, replace(batch, ids=other), LOSS
    )
    assert np.abs(np.asarray(moved.gradients) - known).max() > 1e-3 * scale


def _products(functions: Any, params: Any, arguments: Any) -> list[tuple[str, ...]]:
    """Types of the operands and of the sum of each product with a matrix, in StableHLO."""
    step = jax.jit(partial(accumulate, functions, L, False))
    text = step.lower(params, *arguments).as_text()
    found = re.findall(
        r"stablehlo\.dot_general.*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>", text
    )
    by_two = [each for each in found if each[1].count("x") == 2]  # attention's have heads too
    return [tuple(each.split("x")[-1] for each in product) for product in by_two]


def test_gradients_multiply_bf16_and_reach_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(matrix_dtype="bfloat16")
    prompts, sums, batch, _ = _inputs(model)
    arguments = (prompts, sums, batch, LOSS)
    found = _products(model.functions, model.params, arguments)
    assert set(found) == {("bf16", "bf16", "f32")}

    def plain(x: Any, matrix: Any) -> Any:
        return jnp.matmul(x.astype(matrix.dtype), matrix, preferred_element_type=jnp.float32)

    monkeypatch.setattr(layers, "narrow_product", plain)
    widened = _products(model.functions, model.params, arguments)
    assert ("f32", "f32", "f32") in widened, "the control: JAX's own rule"


def test_a_loss_is_a_mean_or_a_sum_over_target_tokens() -> None:
    recipes = [Recipe(), Recipe(loss_reduction="sum")]
    generator = np.random.default_rng(4)
    prompts, moment, summed = jnp.asarray(generator.standard_normal((3, 2, 4, 5)).astype(np.float32))
    sums = TuningSums(summed, jnp.array([6.0, 6]), jnp.array([3.0, 3]))
    moment, settings, active = moment**2, settings_at(recipes, 3), jnp.array([True, True])
    new, _, losses, finite = apply(prompts, moment, sums, settings, active)
    by_hand = update(prompts, moment, summed / jnp.array([3.0, 1])[:, None, None], settings)[0]
    np.testing.assert_allclose(new, by_hand, rtol=1e-6)
    assert losses.tolist() == [2, 2] and finite.all(), "what is shown is a mean either way"
    same = apply(prompts, moment, sums, settings_at([Recipe()] * 2, 3), active)[0]
    np.testing.assert_array_equal(same[0], new[0])
    assert not np.allclose(same[1], new[1]), "the control"
