"""The shapes in signatures hold: under tests they are checked whenever a function is called or traced."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from chorus_server.model.attention import dense_attention
from chorus_server.model.config import named_config
from chorus_server.model.network import visible
from chorus_server.model.relative import step_bias
from chorus_server.model.t5 import assemble, random_tensors
from chorus_server.pretraining.attention import within_segments
from chorus_server.tuning.training.optimiser import StepSettings, update

CONFIG = named_config("tiny")
MODEL = assemble(CONFIG, "unrolled", jnp.float32, random_tensors(CONFIG, 0))


def encode(lengths: jax.Array) -> jax.Array:
    rows, ids = jnp.zeros((1, CONFIG.d_model)), jnp.zeros((2, 4), jnp.int32)
    return MODEL.functions.encode(MODEL.params, rows, ids, lengths)


def test_right_shapes_pass() -> None:
    assert encode(jnp.array([1, 4])).shape == (2, 4, CONFIG.d_model)


def heads(batch: int, length: int) -> jax.Array:
    return jnp.zeros((batch, 2, length, 8))


def separated() -> jax.Array:
    attend = within_segments(dense_attention, jnp.ones((3, 5), jnp.int32))
    return attend(heads(2, 5), heads(2, 5), heads(2, 5), jnp.ones((2, 1, 1, 5), bool), None)


def updated() -> Any:
    prompts, each = jnp.zeros((2, 3, 8)), jnp.zeros(2)
    return update(prompts, prompts, jnp.zeros((2, 4, 8)), StepSettings(each, each, each, each, each, each))


@pytest.mark.parametrize(
    ("call", "parameter"),
    [
        (lambda: encode(jnp.array([1])), "lengths"),
        (lambda: encode(jnp.array([1.0, 4.0])), "lengths"),
        (lambda: jax.eval_shape(encode, jnp.array([[1, 4]])), "lengths"),
        (
            lambda: dense_attention(
                heads(2, 3), heads(2, 5), heads(2, 4), jnp.ones((2, 1, 1, 5), bool), None
            ),
            "value",
        ),
        (lambda: visible(jnp.zeros((2, 1), jnp.int32), 4), "lengths"),
        (lambda: step_bias(jnp.zeros((32, 2)), jnp.zeros((2, 2), jnp.int32), 4, CONFIG), "positions"),
        (separated, "query"),
        (updated, "gradients"),
    ],
    ids=["rows", "dtype", "traced", "keys and values", "axes", "positions", "segments", "prompts"],
)
def test_a_wrong_shape_is_refused(call: Callable[[], Any], parameter: str) -> None:
    with pytest.raises(TypeCheckError, match=f"parameter '{parameter}'"):
        call()


def test_every_module_with_shapes_is_checked(modules_with_shapes: list[str]) -> None:
    assert len(modules_with_shapes) >= 10
    for name in modules_with_shapes:
        loader = importlib.import_module(name).__loader__
        assert type(loader).__module__.startswith("jaxtyping"), f"{name} was imported before the hook"
