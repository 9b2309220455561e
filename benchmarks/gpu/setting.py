"""What every measurement stands on: a random model made on the device, programs by name, a stopwatch."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chorus_server.engine.executor import CompiledPrograms, ModelSpec, compile_all, model_spec, programs
from chorus_server.engine.plans import Ladder
from chorus_server.model.config import T5Config
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.parameters import parameter_shapes
from chorus_server.model.t5 import Model, assemble

OUTPUT_WIDTH = 64
_DTYPE = jnp.bfloat16


@partial(jax.jit, static_argnums=(1, 2))
def _normal(key: jax.Array, shape: tuple[int, ...], deviation: float) -> jax.Array:
    return jax.random.normal(key, shape, _DTYPE) * jnp.asarray(deviation, _DTYPE)


def _tensors(config: T5Config) -> Iterator[tuple[str, jax.Array]]:
    """Canonical tensors, each drawn on the device: nothing of 22 GB crosses the bus."""
    key = jax.random.key(0)
    for index, (name, shape) in enumerate(parameter_shapes(config).items()):
        if name.endswith("norm"):
            yield name, jnp.ones(shape, _DTYPE)
        else:
            deviation = 1.0 if name == "embedding" else shape[0] ** -0.5
            yield name, _normal(jax.random.fold_in(key, index), shape, deviation)


def random_model(config: T5Config, layout: Any, attention: Any) -> tuple[Model, str]:
    """In bf16, and which attention it has and why."""
    model = assemble(config, layout, _DTYPE, _tensors(config))
    kind, why = choose_attention(attention, _DTYPE)
    return model.with_attention(kind), f"{kind}: {why}"


def compiled(
    model: Model, ladder: Ladder, prompt_rows: int, wanted: Callable[[str], bool]
) -> tuple[ModelSpec, CompiledPrograms]:
    """The server's own programs of a ladder, those that are wanted by name."""
    spec = model_spec(model, prompt_rows, OUTPUT_WIDTH)
    return spec, compile_all(each for each in programs(spec, ladder) if wanted(each.name))


def stopwatch(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Seconds of a call, whose result is waited for; the first one is not measured."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - started)
    return {"median": statistics.median(taken), "best": min(taken), "worst": max(taken)}


def device_facts() -> dict[str, Any]:
    """Of the device that results are about."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "kind": device.device_kind, "platform": device.platform, "devices": len(jax.devices()),
        "memory_gib": round(stats.get("bytes_limit", 0) / 2**30, 1), "jax": jax.__version__,
        "client": jax.devices()[0].client.platform_version.splitlines()[0],
    }  # fmt: skip


def weight_products(config: T5Config, stack: str) -> int:
    """Parameters of the matrices that every position of a stack goes through."""
    return sum(
        math.prod(shape)
        for name, shape in parameter_shapes(config).items()
        if name.startswith(f"{stack}.layers") and len(shape) == 2
    )
