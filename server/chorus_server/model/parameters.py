"""Canonical tensors: the names, shapes and logical axes that every checkpoint reader uses. No JAX.

embedding [V, D]; head [D, V] (absent when tied)
{encoder,decoder}.relative_bias [buckets, H]; {encoder,decoder}.final_norm [D]
encoder.layers.{i}.attention.{query,key,value} [D, H*K], .attention.output [H*K, D], .attention_norm [D]
decoder.layers.{i}.{self,cross}_attention.* and _norm, as the encoder's attention
{encoder,decoder}.layers.{i}.feed_forward.{wi_0,wi_1} (gated) or .wi [D, F], .feed_forward.wo [F, D],
    .feed_forward_norm [D]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from chorus_server.model.config import T5Config

_MATRICES = frozenset(("query", "key", "value", "output", "wi", "wi_0", "wi_1", "wo", "head"))

Axis = Literal["vocab", "embed", "heads", "mlp", "buckets", "layers"]
Axes = tuple[Axis, ...]

PROMPT_LENGTHS = (1, 5, 20, 50, 100, 150)
"""The prompt lengths of Table 4 of Lester et al. 2021."""


def parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Shapes by canonical name, in the order in which the model reads them."""
    sizes: dict[Axis, int] = {
        "vocab": config.padded_vocab_size,
        "embed": config.d_model,
        "heads": config.inner_width,
        "mlp": config.d_ff,
        "buckets": config.relative_buckets,
    }
    shapes = {name: tuple(sizes[axis] for axis in axes) for name, axes in _axes(config).items()}
    for stack in ("encoder", "decoder"):
        shapes[f"{stack}.relative_bias"] = (config.relative_buckets, config.num_heads)
    return shapes


def parameter_axes(config: T5Config) -> dict[str, Axes]:
    """The logical name of each axis by canonical name, for sharding rules.

    "heads" means H * K in projections and H in `relative_bias`: both are split between heads.
    """
    return dict(_axes(config))


def is_matrix(name: str) -> bool:
    """Whether activations are multiplied with a canonical tensor: projections, feed-forwards, the head. The
    embedding is looked up, so it does not count, even if a tied head also multiplies with it."""
    return name.rsplit(".", 1)[-1] in _MATRICES


def parameter_count(config: T5Config) -> int:
    """Number of parameters, including the embedding's padding rows."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One line of Table 4: what a prompt of `length` tokens adds to the frozen model."""

    length: int
    prompt_parameters: int
    total_parameters: int
    trainable_percent: float


def prompt_table(config: T5Config, lengths: tuple[int, ...] = PROMPT_LENGTHS) -> tuple[PromptRow, ...]:
    """Table 4 of Lester et al. 2021 for one model: prompt parameters, total, trainable percent."""
    frozen = parameter_count(config)
    rows = []
    for length in lengths:
        prompt = length * config.d_model
        rows.append(PromptRow(length, prompt, frozen + prompt, 100.0 * prompt / (frozen + prompt)))
    return tuple(rows)


@lru_cache(maxsize=32)
def _axes(config: T5Config) -> MappingProxyType[str, Axes]:
    named: dict[str, Axes] = {"embedding": ("vocab", "embed")}
    for stack, layers, attentions in (
        ("encoder", config.num_encoder_layers, ("attention",)),
        ("decoder", config.num_decoder_layers, ("self_attention", "cross_attention")),
    ):
        named[f"{stack}.relative_bias"] = ("buckets", "heads")
        for index in range(layers):
            named.update(_layer_axes(f"{stack}.layers.{index}", attentions, config.gated))
        named[f"{stack}.final_norm"] = ("embed",)
    if not config.tied:
        named["head"] = ("embed", "vocab")
    return MappingProxyType(named)


def _layer_axes(prefix: str, attentions: tuple[str, ...], gated: bool) -> Iterator[tuple[str, Axes]]:
    for attention in attentions:
        yield f"{prefix}.{attention}_norm", ("embed",)
        for projection in ("query", "key", "value"):
            yield f"{prefix}.{attention}.{projection}", ("embed", "heads")
        yield f"{prefix}.{attention}.output", ("heads", "embed")
    yield f"{prefix}.feed_forward_norm", ("embed",)
    for inner in ("wi_0", "wi_1") if gated else ("wi",):
        yield f"{prefix}.feed_forward.{inner}", ("embed", "mlp")
    yield f"{prefix}.feed_forward.wo", ("mlp", "embed")
