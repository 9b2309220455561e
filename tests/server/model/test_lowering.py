"""Every function lowers for TPU and CUDA on this machine, so that nothing CPU-only creeps in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export

from chorus_server.model.config import named_config
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.t5 import build


def _shape(*shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_function_lowers_for_accelerators(platform: str, layout: Layout, dtype: str) -> None:
    config = named_config("tiny")
    model = build(config, layout, dtype)
    functions, params = model.functions, model.params
    B, L, T, C, D = 2, 16, 8, 3, config.d_model
    ids, lengths, positions = _shape(B, L), _shape(B), _shape(B)
    encoded = _shape(B, L, D, dtype=model.dtype)
    memory = jax.eval_shape(lambda: functions.init_memory(B, L))
    cache = jax.eval_shape(lambda: functions.init_cache(B, T))
    targets, target_lengths = _shape(B, C, T), _shape(B, C)
    step = (params, cache, memory, lengths, positions, positions)
    programs: list[tuple[Any, tuple[Any, ...]]] = [
        (functions.encode, (params, _shape(4, D, dtype=model.dtype), ids, lengths)),
        (functions.encoder_memory, (params, encoded, lengths)),
        (functions.decode_step, step),
        (functions.decode_step, (*step, positions)),
        (functions.decode_targets, (params, encoded, lengths, targets, target_lengths)),
        (functions.target_log_probabilities, (params, encoded, lengths, targets, target_lengths)),
    ]
    for function, arguments in programs:
        exported = export.export(jax.jit(function), platforms=[platform])(*arguments)
        assert exported.platforms == (platform,)
        assert "stablehlo" in exported.mlir_module()
