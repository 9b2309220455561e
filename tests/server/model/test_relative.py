"""Relative position buckets and biases."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.model.config import T5Config, named_config
from chorus_server.model.relative import (
    causal_bias,
    decoder_buckets,
    encoder_bias,
    encoder_buckets,
    step_bias,
)
from tests.places import FIXTURES

BUCKETS = FIXTURES / "parity" / "buckets.npz"
SETTINGS = [(32, 128), (4, 8), (32, 512), (16, 40), (6, 11), (64, 300)]


def _config(buckets: int, reach: int) -> T5Config:
    return dataclasses.replace(named_config("tiny"), relative_buckets=buckets, relative_max_distance=reach)


@pytest.mark.parametrize(("buckets", "reach"), SETTINGS)
def test_every_distance_has_the_bucket_of_the_reference(buckets: int, reach: int) -> None:
    with np.load(BUCKETS) as arrays:
        assert [tuple(row) for row in arrays["settings"].tolist()] == SETTINGS
        both, past = arrays[f"both_{buckets}_{reach}"], arrays[f"past_{buckets}_{reach}"]
    half = len(both) // 2
    np.testing.assert_array_equal(encoder_buckets(half + 1, _config(buckets, reach)), both)
    np.testing.assert_array_equal(decoder_buckets(half + 1, _config(buckets, reach)), past[half::-1])


def test_buckets_saturate_past_the_maximum_distance() -> None:
    config = named_config("tiny")
    assert set(decoder_buckets(4000, config)[128:].tolist()) == {31}
    assert set(encoder_buckets(300, config)[:170].tolist()) == {15}


def test_encoder_bias_is_the_table_row_of_each_pair() -> None:
    config = named_config("tiny")
    table = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
    L = 150
    bias = np.asarray(encoder_bias(jnp.asarray(table), L, config))
    buckets = encoder_buckets(L, config)
    for query, key in [(0, 0), (0, 149), (149, 0), (3, 77), (77, 3), (140, 141)]:
        np.testing.assert_array_equal(bias[:, query, key], table[buckets[key - query + L - 1]])


def test_a_step_has_the_bias_of_its_row_of_the_whole_target() -> None:
    config = named_config("tiny")
    table = jnp.asarray(np.random.default_rng(0).standard_normal((32, 3)), jnp.float32)
    T = 200
    whole = np.asarray(causal_bias(table, T, config))
    positions = np.array([0, 1, 63, 130, 199], np.int32)
    step = np.asarray(step_bias(table, jnp.asarray(positions), T, config))
    for slot, position in enumerate(positions):
        np.testing.assert_array_equal(step[slot, :, : position + 1], whole[:, position, : position + 1])
