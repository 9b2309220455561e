"""The bytes that one decode step must move. Divided by the bandwidth they give the least time of a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chorus_server.engine.memory_plan import weight_bytes
from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.parameters import is_matrix


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes on one device, each read or written once. Padding is not counted: a program that reads it moves
    more.

    Attributes:
        weights: decoder and head, without the layers that only make encoder memory.
        encoder_memory: cross-attention keys and values for the inputs' actual lengths.
        self_attention: keys and values of the tokens so far, and of the new one.
        logits: f32, for the device's slots.
    """

    weights: int
    encoder_memory: int
    self_attention: int
    logits: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def milliseconds(self, gigabytes_per_second: float) -> float:
        """The time of a step at this memory bandwidth, where 1 GB is 1e9 bytes."""
        return self.total / gigabytes_per_second / 1e6


def decode_step_bytes(
    config: T5Config,
    dtype: Any,
    slots: int,
    input_tokens: float,
    tokens_so_far: float,
    mesh: DeviceMesh | None = None,
    matrix_dtype: Any = None,
) -> StepBytes:
    """The bytes of one step with `slots` slots in use.

    Args:
        input_tokens: mean number of encoder positions of an input.
        tokens_so_far: mean number of decoder positions before the step.
        mesh: the devices that share the model; slots are shared over its data axis.
        matrix_dtype: dtype of the model's matrices; None means `dtype`.
    """
    size = np.dtype(dtype).itemsize
    matrix = size if matrix_dtype is None else np.dtype(matrix_dtype).itemsize
    data, model = (mesh.data, mesh.model) if mesh else (1, 1)
    own = slots / data
    position = 2 * config.num_decoder_layers * config.num_heads * config.d_kv * size / model
    return StepBytes(
        weights=weight_bytes(config, matrix, mesh, lambda name: _in_a_step(name) and is_matrix(name))
        + weight_bytes(config, size, mesh, lambda name: _in_a_step(name) and not is_matrix(name))
        + _tied_head(config, size, model),
        encoder_memory=round(own * input_tokens * position),
        self_attention=round(own * (tokens_so_far + 1) * position),
        logits=round(own * config.padded_vocab_size * 4),
    )


def _in_a_step(name: str) -> bool:
    makes_memory = name.endswith(("cross_attention.key", "cross_attention.value"))
    return name == "head" or (name.startswith("decoder.") and not makes_memory)


def _tied_head(config: T5Config, size: int, model: int) -> int:
    return config.padded_vocab_size * config.d_model * size // model if config.tied else 0
