"""Adafactor is optax's with T5's settings; the schedules are T5's."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.pretraining.optimiser import learning_rate, make_optimiser
from tests.server.pretraining.pretraining_tools import settings


def run(optimiser: optax.GradientTransformation, steps: int = 4) -> Any:
    """Steps on a factored matrix, a small one and a vector."""
    generator = np.random.default_rng(0)
    shapes = {"wide": (130, 140), "small": (5, 7), "norm": (9,)}
    tensors = {name: jnp.asarray(generator.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    state = optimiser.init(tensors)
    update = jax.jit(optimiser.update)
    for _ in range(steps):
        gradients = {n: jnp.asarray(generator.normal(size=s), jnp.float32) for n, s in shapes.items()}
        changes, state = update(gradients, state, tensors)
        tensors = optax.apply_updates(tensors, changes)
    return tensors


def test_adafactor_is_t5s() -> None:
    ours = run(make_optimiser(settings(schedule="constant", learning_rate=0.01, warmup_steps=0)))
    theirs = run(
        optax.adafactor(0.01, multiply_by_parameter_scale=True, clipping_threshold=1.0, decay_rate=0.8)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ours, theirs)
    # The control: without scaling by the parameters' size it is another.
    other = run(optax.adafactor(0.01, multiply_by_parameter_scale=False))
    assert np.abs(other["norm"] - ours["norm"]).max() > 1e-3


def test_adamw_takes_steps_of_the_tensors_size() -> None:
    scaled = run(
        make_optimiser(settings(optimiser="adamw", schedule="constant", learning_rate=0.1, warmup_steps=0))
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scaled))
    plain = settings(
        optimiser="adamw", schedule="constant", learning_rate=0.1, warmup_steps=0, parameter_scaling=False
    )
    assert np.abs(run(make_optimiser(plain))["norm"] - scaled["norm"]).max() > 1e-3


@pytest.mark.parametrize(("done", "expected"), [(0, 0.01), (9_999, 0.01), (39_999, 0.005), (999_999, 0.001)])
def test_the_pretraining_schedule(done: int, expected: float) -> None:
    rate = learning_rate(settings(learning_rate=1.0, warmup_steps=10_000, steps=2_000_000))
    assert math.isclose(float(rate(done)), expected, rel_tol=1e-5)


def test_warmup_and_cooldown() -> None:
    chosen = settings(
        schedule="constant", learning_rate=0.1, warmup_steps=10, cooldown_steps=4, steps=100, batch_size=4
    )
    rates = [float(learning_rate(chosen)(done)) for done in range(100)]
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(rates[10:96], 0.1, rtol=1e-6)
    np.testing.assert_allclose(rates[96:], [0.08, 0.06, 0.04, 0.02], rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"micro_batch_size": 3}, "--micro-batch-size"),
        ({"steps": 0}, "--steps"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"objective": "none"}, "--objective"),
        ({"cooldown_steps": 7}, "--cooldown-steps"),
    ],
)
def test_settings_out_of_range_name_their_option(wrong: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{option} "):
        settings(**wrong)
