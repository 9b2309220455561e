"""Measures how fast pretraining is here: a few steps of the plan's own shape, without compiling."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from base_stages.plan import Plan
from chorus_server.model.config import T5Config
from chorus_server.model.t5 import random_tensors
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.data.span_corruption import fitting_shape
from chorus_server.pretraining.programs import make_programs
from chorus_server.pretraining.settings import PretrainingSettings

STEPS = 3


def tokens_per_second(plan: Plan, how: dict[str, Any]) -> float:
    """Tokens a second of the plan's pretraining.

    Args:
        how: fields of `PretrainingSettings` that decide speed.
    """
    settings = PretrainingSettings(**{**how, **plan.pretrain})
    pieces = plan.pieces + 100
    config = T5Config(
        name="speed", vocab_size=pieces, padded_vocab_size=-(-pieces // 128) * 128, **plan.architecture
    )  # type: ignore[arg-type]
    shape = fitting_shape(settings.input_length, settings.noise_density, settings.mean_span_length, 100)
    programs = make_programs(config, settings, None)
    tensors: Any = {name: jax.device_put(array) for name, array in random_tensors(config, 0)}
    state = programs.start(tensors)
    ids = np.random.default_rng(0).integers(3, pieces, (settings.micro_batch_size, 2 * shape.chunk))
    ids = ids.astype(np.uint16)
    batch = programs.place(Rows(ids[:, : shape.input_length], None, ids[:, -shape.target_length :], None))
    began = 0.0
    for step in range(STEPS + 1):
        sums = programs.empty()
        for _ in range(settings.micro_batches):
            sums = programs.accumulate(tensors, sums, batch)
        tensors, state, standing = programs.apply(tensors, state, sums)
        float(standing.loss)
        if step == 0:
            began = time.perf_counter()
    tokens = STEPS * settings.batch_size * (shape.input_length + shape.target_length)
    return tokens / (time.perf_counter() - began)
