"""The training step lowers for TPU and CUDA on this machine, in both layouts and dtypes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export

from chorus_server.model.config import named_config
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.t5 import build
from chorus_server.tuning.training.objective import LossConfig, TuningBatch, TuningSums, accumulate


def _shape(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_step_lowers_for_accelerators(platform: str, layout: Layout) -> None:
    config = named_config("tiny")
    model = build(config, layout, "bfloat16")
    N, P, D, M, L, T = 2, 3, config.d_model, 2, 16, 4
    ints = partial(_shape, dtype=jnp.int32)
    batch = TuningBatch(
        ints(N * M * L), *(ints(N * M),) * 2, ints(N * M, T), ints(N * M), _shape(N * M, 2, dtype=jnp.uint32)
    )
    sums = TuningSums(_shape(N, P, D), _shape(N), _shape(N))
    step = jax.jit(partial(accumulate, model.functions, L, True))
    exported = export.export(step, platforms=[platform])(
        model.params, _shape(N, P, D), sums, batch, LossConfig(_shape(), _shape())
    )
    assert exported.platforms == (platform,)
    # Gradients, losses and counts stay f32 whatever the model computes in.
    assert {str(leaf.dtype) for leaf in exported.out_avals} == {"float32"}
