"""A decode step of the server's own program, against the bytes that it cannot avoid moving."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from scale import Scale, chosen_shapes
from setting import compiled, stopwatch

from chorus_server.engine.executor.programs import decode_name
from chorus_server.engine.executor.state import BlockState
from chorus_server.engine.plans import BlockShape, Ladder
from chorus_server.engine.step_bytes import decode_step_bytes
from chorus_server.model.t5 import Model

GOAL = 1.5


def lengths_around(mean: int, longest: int, count: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Input lengths with this mean, spread by a third of it, within the block."""
    drawn = np.random.default_rng(mean).normal(mean, mean / 3, count)
    clipped = np.clip(drawn, 2, longest)
    return np.clip(np.round(clipped + mean - clipped.mean()), 2, longest).astype(np.int32)


def occupied(state: BlockState, lengths: Any, new_tokens: int) -> BlockState:
    """A block whose every slot decodes greedily to its last token."""
    slots, whole = state.slots, np.full(lengths.shape, new_tokens, np.int32)
    settings = slots.settings | {name: jnp.array(whole) for name in ("max_new_tokens", "min_new_tokens")}
    busy = replace(slots, active=jnp.ones(lengths.shape, bool), settings=settings)
    return replace(state, memory_lengths=jnp.asarray(lengths), slots=busy)


def measure(scale: Scale, model: Model, gigabytes_per_second: float) -> list[dict[str, Any]]:
    """The issue's blocks, then those of the chosen shapes at two thirds of their lengths."""
    issue = [
        (mean, BlockShape(longest, scale.new_tokens, scale.slots), True)
        for mean, longest in scale.decode_means
    ]
    chosen = [
        (block.input_length * 2 // 3, block, False)
        for block in dict.fromkeys(chosen_shapes(scale, model).ladder.blocks)
    ]
    return [
        _measure(scale, model, mean, shape, gigabytes_per_second) | ({} if goal else {"chosen": True})
        for mean, shape, goal in issue + chosen
    ]


def _measure(scale: Scale, model: Model, mean: int, shape: BlockShape, bandwidth: float) -> dict[str, Any]:
    longest = shape.input_length
    ladder = Ladder(((1, longest),), (shape,), (), 8)
    name = decode_name(shape, "plain")
    spec, program = compiled(model, ladder, 8, lambda each: each in (name, "empty"))
    lengths = lengths_around(mean, longest, shape.slots)
    release, steps = np.zeros(shape.slots, bool), np.int32(scale.dispatch)

    def empty() -> Any:
        return program["empty"]()[2][0]

    def call() -> Any:
        """The state is donated, so each call begins with a block of its own; making it is measured apart."""
        return program[name](spec.params, occupied(empty(), lengths, shape.new_tokens), release, steps)

    whole = stopwatch(call, scale.repeats)
    setting_up = stopwatch(lambda: occupied(empty(), lengths, shape.new_tokens), scale.repeats)
    _, output = call()
    assert int(output.steps) == scale.dispatch, "a slot ended early"
    step = (whole["median"] - setting_up["median"]) / scale.dispatch
    least = decode_step_bytes(
        model.config, model.dtype, shape.slots, float(lengths.mean()), (scale.dispatch - 1) / 2
    )
    # Weights, keys and values only: that logits are written too is ours to pay.
    bound = replace(least, logits=0).milliseconds(bandwidth) / 1e3
    return {
        "mean_positions": float(lengths.mean()), "block": asdict(shape), "step_seconds": step,
        "bytes": asdict(least) | {"total": least.total}, "bound_seconds": bound, "times_bound": step / bound,
        "goal": GOAL, "reached": step / bound <= GOAL, "call_seconds": whole, "set_up_seconds": setting_up,
        "xla_temporary_bytes": program.temporary_bytes[name],
    }  # fmt: skip
