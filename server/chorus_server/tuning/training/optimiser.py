"""Adafactor (Shazeer and Stern 2018) as prompt tuning uses it: not factored, no momentum.

Each prompt of a stack [N, P, D] has its own statistics, clipping and scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from chorus_server.tuning.document.recipe import Recipe

EPSILON = 1e-30
"""Added to squared gradients, so that a gradient of 0 is not divided by 0."""

SMALLEST_SCALE = 1e-3
"""Parameter scaling multiplies by the RMS of the prompt, but at least by this."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepSettings:
    """What a step needs of the recipes, f32 [N] each, as arguments: one program then serves all recipes.

    Attributes:
        learning_rate: of this step.
        fresh: 1 - beta2 of this step, the weight of the newest squared gradient (near 1, f32 is too coarse
            for beta2 itself).
        weight_decay: not multiplied by the learning rate.
        clip_rms: largest RMS of an update before the learning rate.
        parameter_scaling: 1 or 0.
        sums: 1 or 0: whether gradients are of the loss summed over target tokens, not of its mean.
    """

    learning_rate: Any
    fresh: Any
    weight_decay: Any
    clip_rms: Any
    parameter_scaling: Any
    sums: Any


def settings_at(recipes: Sequence[Recipe], step: int) -> StepSettings:
    """The settings of a step (0, 1, ...), computed on the host in double precision."""

    def each(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.array(values, np.float32)

    return StepSettings(
        learning_rate=each([recipe.learning_rate_at(step) for recipe in recipes]),
        fresh=each([_fresh(recipe, step) for recipe in recipes]),
        weight_decay=each([recipe.weight_decay for recipe in recipes]),
        clip_rms=each([recipe.clip_rms for recipe in recipes]),
        parameter_scaling=each([float(recipe.parameter_scaling) for recipe in recipes]),
        sums=each([float(recipe.loss_reduction == "sum") for recipe in recipes]),
    )


def update(
    prompts: Float32[Array, "N P D"],
    second_moment: Float32[Array, "N P D"],
    gradients: Float32[Array, "N P D"],
    settings: StepSettings,
) -> tuple[Float32[Array, "N P D"], Float32[Array, "N P D"]]:
    """One step: new prompts, new second_moment.

    The second moment starts as zeros: beta2 of the first step is 0 (without `second_moment_steps_before`).
    """
    new: tuple[Array, Array] = jax.vmap(_update_one)(prompts, second_moment, gradients, settings)
    return new


def _update_one(
    prompt: Float32[Array, "P D"],
    second_moment: Float32[Array, "P D"],
    gradient: Float32[Array, "P D"],
    settings: StepSettings,
) -> tuple[Float32[Array, "P D"], Float32[Array, "P D"]]:
    squared = gradient * gradient + EPSILON
    moment = (1 - settings.fresh) * second_moment + settings.fresh * squared
    change = gradient * jax.lax.rsqrt(moment)
    change = change / jnp.maximum(1.0, _rms(change) / settings.clip_rms)
    scale = jnp.where(settings.parameter_scaling > 0, jnp.maximum(_rms(prompt), SMALLEST_SCALE), 1.0)
    change = change * settings.learning_rate * scale
    return prompt - (change + settings.weight_decay * prompt), moment


def _fresh(recipe: Recipe, step: int) -> float:
    done = step + 1 + recipe.second_moment_steps_before
    return float(done**-recipe.second_moment_decay)


def _rms(x: Float32[Array, "..."]) -> Float32[Array, ""]:
    return jnp.sqrt(jnp.mean(x * x))
