"""T5's Adafactor (Shazeer and Stern 2018), or AdamW, over canonical tensors.

Statistics, clipping and scaling belong to each tensor. Layers are never stacked here, so the layout changes
no number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from chorus_server.pretraining.settings import PretrainingSettings

FACTORED_FROM = 128
"""A tensor's second moment is factored if its two largest axes are at least this long, as in T5."""
ADAM_B2 = 0.98

Rate = Callable[[Any], Any]


def learning_rate(settings: PretrainingSettings) -> Rate:
    """From steps done (0 before the first) to the learning rate, f32. It can be traced."""

    def rate(done: Any) -> Any:
        step = jnp.asarray(done, jnp.float32) + 1
        if settings.schedule == "rsqrt":
            value = settings.learning_rate * jax.lax.rsqrt(jnp.maximum(step, max(settings.warmup_steps, 1)))
        else:
            value = settings.learning_rate * jnp.minimum(1.0, step / max(settings.warmup_steps, 1))
        if settings.cooldown_steps:
            left = (settings.steps + 1 - step) / (settings.cooldown_steps + 1)
            value = value * jnp.clip(left, 0.0, 1.0)
        return value

    return rate


def make_optimiser(settings: PretrainingSettings) -> optax.GradientTransformation:
    """The optimiser of a run."""
    rate, decay = learning_rate(settings), settings.weight_decay
    if settings.optimiser == "adafactor":
        first = [
            optax.scale_by_factored_rms(min_dim_size_to_factor=FACTORED_FROM, decay_rate=0.8),
            optax.clip_by_block_rms(1.0),
        ]
    else:
        first = [optax.clip_by_global_norm(1.0), optax.scale_by_adam(b2=ADAM_B2)]
    scaling = [optax.scale_by_param_block_rms()] if settings.parameter_scaling else []
    decaying = [optax.add_decayed_weights(decay)] if decay else []
    return optax.chain(*first, *scaling, *decaying, optax.scale_by_learning_rate(rate))
