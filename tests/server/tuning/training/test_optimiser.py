"""Adafactor against arithmetic written out in NumPy, and against optax on one prompt."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.optimiser import settings_at, update

N, P, D, STEPS = 3, 4, 7, 6


def _gradients(seed: int = 0) -> Any:
    """Of very different sizes, so that clipping and the second moment matter."""
    generator = np.random.default_rng(seed)
    sizes = 10.0 ** generator.integers(-6, 3, (STEPS, N, 1, 1))
    return (generator.standard_normal((STEPS, N, P, D)) * sizes).astype(np.float32)


def _ours(recipes: list[Recipe], start: Any, gradients: Any) -> Any:
    prompts, moment = jnp.asarray(start), jnp.zeros_like(start)
    step = jax.jit(update)
    for t, gradient in enumerate(gradients):
        prompts, moment = step(prompts, moment, gradient, settings_at(recipes, t))
    return np.asarray(prompts)


def _by_hand(recipe: Recipe, start: Any, gradients: Any) -> Any:
    """Shazeer and Stern 2018, algorithm 4 without factors, in double precision."""
    prompt, moment = start.astype(np.float64), np.zeros_like(start, np.float64)
    for t, gradient in enumerate(gradients.astype(np.float64)):
        beta2 = 1 - (t + 1 + recipe.second_moment_steps_before) ** -recipe.second_moment_decay
        moment = beta2 * moment + (1 - beta2) * (gradient**2 + 1e-30)
        change = gradient / np.sqrt(moment)
        change /= max(1.0, np.sqrt(np.mean(change**2)) / recipe.clip_rms)
        scale = max(1e-3, np.sqrt(np.mean(prompt**2))) if recipe.parameter_scaling else 1.0
        prompt = prompt - recipe.learning_rate_at(t) * scale * change - recipe.weight_decay * prompt
    return prompt


def _optax(recipe: Recipe, start: Any, gradients: Any) -> Any:
    """One block, whatever its shape."""
    theirs = optax.adafactor(
        learning_rate=recipe.learning_rate, factored=False, weight_decay_rate=recipe.weight_decay,
        multiply_by_parameter_scale=recipe.parameter_scaling,
    )  # fmt: skip
    prompt = jnp.asarray(start)
    state = theirs.init(prompt)
    for gradient in gradients:
        changes, state = theirs.update(jnp.asarray(gradient), state, prompt)
        prompt = optax.apply_updates(prompt, changes)
    return np.asarray(prompt)


RECIPES = [
    Recipe(),
    Recipe(parameter_scaling=True, learning_rate=0.1, weight_decay=0.01),
    Recipe(
        warmup_steps=3,
        decay_factor=0.5,
        steps_per_decay=2,
        clip_rms=0.4,
        second_moment_steps_before=1_100_000,
    ),
]


def test_a_stack_is_the_arithmetic_of_each_prompt() -> None:
    start = np.random.default_rng(1).standard_normal((N, P, D)).astype(np.float32)
    gradients = _gradients()
    found = _ours(RECIPES, start, gradients)
    for n, recipe in enumerate(RECIPES):
        np.testing.assert_allclose(
            found[n], _by_hand(recipe, start[n], gradients[:, n]), rtol=2e-5, atol=2e-6
        )


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[1]], ids=["paper", "parameter_scaling"])
def test_one_prompt_is_optax(recipe: Recipe) -> None:
    start = np.random.default_rng(2).standard_normal((1, P, D)).astype(np.float32)
    gradients = _gradients(4)[:, :1]
    theirs = _optax(recipe, start[0], gradients[:, 0])
    np.testing.assert_allclose(_ours([recipe], start, gradients)[0], theirs, rtol=2e-5, atol=2e-6)


def test_clipping_is_per_prompt() -> None:
    """A prompt whose updates must be clipped leaves its neighbour alone; optax on the stack clips both."""
    generator = np.random.default_rng(3)
    start = generator.standard_normal((2, P, D)).astype(np.float32)
    gradients = generator.standard_normal((STEPS, 2, P, D)).astype(np.float32)
    gradients[-1] *= np.array([0.1, 1e3], np.float32)[:, None, None]
    together = _ours([Recipe()] * 2, start, gradients)
    np.testing.assert_array_equal(together[:1], _ours([Recipe()], start[:1], gradients[:, :1]))
    np.testing.assert_allclose(_optax(Recipe(), start[0], gradients[:, 0]), together[0], rtol=2e-5, atol=2e-6)
    jointly = _optax(Recipe(), start, gradients)
    assert np.abs(jointly[0] - together[0]).max() > 0.01


def test_the_learning_rate_warms_up_from_zero_and_decays() -> None:
    recipe = Recipe(learning_rate=0.4, warmup_steps=4, decay_factor=0.5, steps_per_decay=10)
    rates = [recipe.learning_rate_at(step) for step in (0, 1, 3, 4, 9, 10, 19, 20)]
    assert rates == pytest.approx([0.0, 0.1, 0.3, 0.4, 0.4, 0.2, 0.2, 0.1])
    assert {Recipe().learning_rate_at(step) for step in (0, 5, 29_999)} == {0.3}
