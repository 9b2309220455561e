"""Attention over whole sequences: beside a plain softmax, and two rows at a time beside all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.model.attention import SHORT, dense_attention, paired_attention

LONG = 2 * SHORT


def _inputs(batch: int, dtype: Any = jnp.float32, queries: int = 9, length: int = 9) -> tuple[Any, ...]:
    generator = np.random.default_rng(batch)
    query = jnp.asarray(generator.normal(size=(batch, 3, queries, 8)), dtype)
    key, value = (jnp.asarray(generator.normal(size=(batch, 3, length, 8)), dtype) for _ in range(2))
    lengths = generator.integers(1, length + 1, size=batch)
    visible = jnp.asarray(np.arange(length)[None, None, None, :] < lengths[:, None, None, None])
    return (
        query,
        key,
        value,
        visible,
        jnp.asarray(generator.normal(size=(1, 3, queries, length)), jnp.float32),
    )


@pytest.mark.parametrize("biased", [True, False])
def test_dense_attention_is_a_softmax_of_scores_times_values(biased: bool) -> None:
    query, key, value, visible, bias = _inputs(4, queries=5)
    scores = np.einsum("bhqk,bhlk->bhql", *(np.asarray(x, np.float64) for x in (query, key)))
    scores = np.where(np.asarray(visible), scores + (np.asarray(bias) if biased else 0), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.einsum("bhql,bhlk->bhqk", weights, np.asarray(value, np.float64))
    ours = dense_attention(query, key, value, visible, bias if biased else None)
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)


def test_where_nothing_is_visible_values_are_averaged() -> None:
    query, key, value, visible, bias = _inputs(2)
    ours = dense_attention(query, key, value, jnp.zeros_like(visible), bias)
    np.testing.assert_allclose(ours, jnp.broadcast_to(value.mean(2, keepdims=True), ours.shape), atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8])
def test_pairs_of_rows_give_the_same_bits(batch: int, dtype: Any) -> None:
    *heads, visible, bias = _inputs(batch, dtype, LONG, LONG)
    causal = jnp.tril(jnp.ones((LONG, LONG), bool))[None, None]  # one mask for all rows
    own = bias * jnp.arange(1, batch + 1)[:, None, None, None]  # each row has its own, as a tree has
    for mask, given in ((visible, bias), (visible, None), (causal, bias), (visible, own)):
        whole = jax.jit(dense_attention)(*heads, mask, given)
        pairs = jax.jit(paired_attention)(*heads, mask, given)
        assert pairs.dtype == dtype
        np.testing.assert_array_equal(np.asarray(pairs, np.float32), np.asarray(whole, np.float32))


def test_only_an_even_batch_of_more_than_a_pair_is_cut_and_none_under_dropout() -> None:
    def products(batch: int, **dropped: Any) -> int:
        return _products(partial(paired_attention, **dropped), _inputs(batch, length=LONG))

    assert {batch: products(batch) for batch in (1, 2, 3, 4, 8)} == {1: 2, 2: 2, 3: 2, 4: 4, 8: 8}
    assert products(8, drop=lambda weights: weights * 0.5) == 2


def test_rows_of_few_keys_are_not_cut() -> None:
    assert {n: _products(paired_attention, _inputs(8, length=n)) for n in (SHORT, LONG)} == {
        SHORT: 2,
        LONG: 8,
    }


def _products(attention: Callable[..., Any], inputs: tuple[Any, ...]) -> int:
    return str(jax.jit(attention).lower(*inputs).as_text()).count("dot_general")


def test_dropped_weights_are_dropped_before_the_division() -> None:
    arguments = _inputs(2)
    whole = dense_attention(*arguments)
    np.testing.assert_allclose(
        dense_attention(*arguments, lambda weights: weights * 0.25), whole * 0.25, rtol=1e-6
    )
