"""Dropout: off it changes nothing, on it belongs to a row's key and to nobody else."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.model.config import named_config
from chorus_server.model.dropout import Dropout
from chorus_server.model.functions import Functions
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.t5 import Model, assemble, random_tensors

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = named_config("tiny")
B, L, C, T = 4, 9, 2, 3


@lru_cache
def _model(layout: Layout = "unrolled") -> Model:
    return assemble(CONFIG, layout, "float32", random_tensors(CONFIG, 3))


def _keys(seeds: list[int]) -> Any:
    return jax.vmap(jax.random.key)(jnp.array(seeds))


@partial(jax.jit, static_argnums=0)
def _run(functions: Functions, params: Any, ids: Any, lengths: Any, dropout: Dropout | None) -> Any:
    rows = jnp.zeros((1, CONFIG.d_model))
    encoded = functions.encode(params, rows, ids, lengths, dropout)
    targets = jnp.tile(jnp.array([[5, 9, 1], [4, 7, 1]]), (ids.shape[0], 1, 1))
    whole = jnp.full((ids.shape[0], C), T)
    return functions.decode_targets(params, encoded, lengths, targets, whole, dropout)


def _logits(model: Model, ids: Any, lengths: Any, dropout: Dropout | None) -> Any:
    return np.asarray(_run(model.functions, model.params, ids, lengths, dropout))


def _inputs() -> tuple[Any, Any]:
    ids = np.random.default_rng(1).integers(2, 160, (B, L)).astype(np.int32)
    return ids, np.array([9, 7, 9, 3], np.int32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rate_of_zero_is_no_dropout_and_another_rate_is(layout: Layout) -> None:
    model, (ids, lengths) = _model(layout), _inputs()
    plain = _logits(model, ids, lengths, None)
    zero = _logits(model, ids, lengths, Dropout(_keys([1, 2, 3, 4]), jnp.float32(0)))
    some = _logits(model, ids, lengths, Dropout(_keys([1, 2, 3, 4]), jnp.float32(0.1)))
    np.testing.assert_allclose(plain, zero, rtol=1e-5, atol=1e-5)
    assert np.abs(plain - some).max() > 0.05


def test_both_layouts_drop_the_same_values() -> None:
    ids, lengths = _inputs()
    dropout = Dropout(_keys([1, 2, 3, 4]), jnp.float32(0.2))
    found = [_logits(_model(layout), ids, lengths, dropout) for layout in LAYOUTS]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_masks_follow_the_key_of_a_row_not_its_place_or_neighbours() -> None:
    model, (ids, lengths) = _model(), _inputs()
    rate = jnp.float32(0.2)
    seeds = [11, 12, 13, 14]
    one = _logits(model, ids, lengths, Dropout(_keys(seeds), rate))
    order = [2, 0, 3, 1]
    other = _logits(model, ids[order], lengths[order], Dropout(_keys([seeds[n] for n in order]), rate))
    np.testing.assert_allclose(one[order], other, rtol=1e-5, atol=1e-5)
    # The control: another key for one row changes that row, and no other.
    changed = _logits(model, ids, lengths, Dropout(_keys([11, 12, 99, 14]), rate))
    assert np.abs(changed[2] - one[2]).max() > 0.05
    np.testing.assert_array_equal(changed[[0, 1, 3]], one[[0, 1, 3]])


def test_a_longer_padding_drops_the_same_values() -> None:
    model, (ids, lengths) = _model(), _inputs()
    dropout = Dropout(_keys([1, 2, 3, 4]), jnp.float32(0.2))
    padded = np.pad(ids, ((0, 0), (0, 5)))
    short, long = (_logits(model, each, lengths, dropout) for each in (ids, padded))
    np.testing.assert_allclose(short, long, rtol=1e-4, atol=1e-4)


def test_the_share_of_dropped_values_and_the_mean() -> None:
    dropout = Dropout(_keys(list(range(200))), jnp.float32(0.25))
    ends, (layer, other) = dropout.draw("unrolled", 2, 100, (60, 50), (30,), 4)
    out = np.asarray(layer.channels(0, jnp.ones((200, 3, 60))))
    assert (out == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert out.mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(out[:, 0], out[:, 2])
    weights = np.asarray(layer.attended(0, jnp.ones((400, 4, 5, 30))))
    assert (weights == 0).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(weights[0::2], weights[1::2])
    assert np.asarray(layer.channel[0] != other.channel[0]).any()
    assert [mask.shape for mask in ends.channel] == [(200, 100)] * 2
