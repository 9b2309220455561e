"""Sizes of what is measured: those of the goals, and toy ones that any machine runs in a minute."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from chorus_server.engine.memory_plan import DEVICE_SHARE, device_limit
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.t5 import Model
from chorus_server.settings import Settings
from chorus_server.settings.values import ShapeChoice
from chorus_server.shapes import Deployment, Shapes, shapes_of

TOY = T5Config(
    name="toy", vocab_size=500, padded_vocab_size=512, d_model=64, d_kv=16, d_ff=128, num_heads=4,
    num_encoder_layers=1, num_decoder_layers=1,
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """One scale.

    Attributes:
        copy_elements, matmul_size, chain: of the ceilings: bf16 values copied, side of the square matrices,
            operations in one call.
        model, base: what decode, prefill, residents and labels run on, and what `base` runs on.
        decode_means: encoder positions on average, with the block's input length.
        slots, new_tokens: of the decode block.
        dispatch: decode steps in one call.
        prefill: rows and positions of a prefill step.
        residents, prompt: prompts in the table, rows of one.
        base_batch, base_input, base_new_tokens: of the greedy batch.
        label_requests, label_tasks, label_lengths: of the labels load, and the lengths it is compiled for.
        memory: GB of a card to choose shapes for; None asks the device.
        repeats: measured calls.
    """

    copy_elements: int
    matmul_size: int
    chain: int
    model: T5Config
    base: T5Config
    decode_means: tuple[tuple[int, int], ...]
    slots: int
    new_tokens: int
    dispatch: int
    prefill: tuple[int, int]
    residents: int
    prompt: int
    base_batch: int
    base_input: int
    base_new_tokens: int
    label_requests: int
    label_tasks: int
    label_lengths: tuple[int, ...]
    memory: float | None
    repeats: int


def full_scale() -> Scale:
    """Issue-sized: T5-XXL in bf16 needs 22 GB for the weights."""
    return Scale(
        copy_elements=2**30, matmul_size=8192, chain=20, model=named_config("xxl"), base=named_config("base"),
        decode_means=((150, 256), (400, 512)), slots=64, new_tokens=64, dispatch=32, prefill=(64, 256),
        residents=2000, prompt=100, base_batch=128, base_input=64, base_new_tokens=64, label_requests=512,
        label_tasks=64, label_lengths=(192, 256, 320, 416), memory=None, repeats=10,
    )  # fmt: skip


def toy_scale() -> Scale:
    return Scale(
        copy_elements=2**16, matmul_size=64, chain=3, model=TOY, base=TOY, decode_means=((12, 16),),
        slots=4, new_tokens=8, dispatch=4, prefill=(4, 16), residents=20, prompt=4, base_batch=4,
        base_input=16, base_new_tokens=6, label_requests=8, label_tasks=4, label_lengths=(416,), memory=0.05,
        repeats=2,
    )  # fmt: skip


def chosen_shapes(scale: Scale, model: Model) -> Shapes:
    """What `shapes = auto` chooses for this card and these lengths; at toy size for a card of that memory."""
    toy = scale.memory is not None
    limit = int((scale.memory or 0) * 1e9 * DEVICE_SHARE) if toy else device_limit()
    platform = "gpu" if toy else jax.default_backend()
    deployment = Deployment(model.config, platform, limit, model.dtype, model.matrix_dtype)
    return shapes_of(Settings(shapes=ShapeChoice(input_lengths=scale.label_lengths)), deployment)
