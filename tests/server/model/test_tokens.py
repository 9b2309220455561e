"""Gradients of the gathers between the token axis and its blocks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chorus_server.model.tokens import token_rows

STARTS, LENGTHS = np.array([0, 4, 4, 9]), np.array([4, 0, 5, 2])
ROWS = token_rows(jnp.asarray(STARTS), jnp.asarray(LENGTHS), 14, 6)


def test_each_gather_turns_the_other_around() -> None:
    """<blocks(x), g> is <x, gradient>, as for any linear map, and what belongs to no row gets 0."""
    generator = np.random.default_rng(0)
    x, g = generator.normal(size=(14, 6)), generator.normal(size=(4, 2, 6, 3))

    def product(x: Any) -> Any:
        return (ROWS.blocks(x, 2) * g).sum()

    def back(blocks: Any) -> Any:
        return (jnp.where(ROWS.real[:, None], ROWS.tokens(blocks), 0) * x).sum()

    by_x, by_blocks = jax.grad(product)(jnp.asarray(x)), jax.grad(back)(jnp.asarray(g))
    np.testing.assert_allclose(product(jnp.asarray(x)), (by_x * x).sum(), rtol=1e-5)
    np.testing.assert_allclose(back(jnp.asarray(g)), (by_blocks * g).sum(), rtol=1e-5)
    assert not np.asarray(by_x)[11:].any()
    assert not np.asarray(by_blocks)[~np.asarray(ROWS.visible)[:, None].repeat(2, axis=1)].any()


def test_a_neighbour_that_is_no_number_reaches_no_gradient() -> None:
    gradient = np.ones((4, 2, 6, 3), np.float32)
    gradient[0] = np.nan
    _, turn = jax.vjp(lambda x: ROWS.blocks(x, 2), jnp.ones((14, 6)))
    (found,) = turn(jnp.asarray(gradient))
    assert np.isnan(found[:4]).all() and np.isfinite(found[4:]).all()
