"""The architecture of a T5X checkpoint, from the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.huggingface_config import unpadded_vocab_size
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary
from chorus_server.model.config import Activation, T5Config

TensorShapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class T5XHints:
    """Facts that shapes cannot give.

    Attributes:
        name: shown to people.
        vocab_size: ids without padding rows; if None, the vocabulary decides, else known paddings.
        relative_max_distance: 128 in every published model.
        activation: None means gelu if gated (T5 1.1, mT5), else relu (T5 1.0).
    """

    name: str
    vocab_size: int | None = None
    relative_max_distance: int | None = None
    activation: Activation | None = None


def infer_config(shapes: TensorShapes, hints: T5XHints, vocabulary: FoundVocabulary | None) -> T5Config:
    """The config that fits the shapes.

    Args:
        shapes: by T5X name, such as `encoder/layers_0/attention/query/kernel`.

    Raises:
        InvalidModelError: a tensor that is needed for sizes is missing or has the wrong rank; names it.
    """
    if any(name.startswith(("encoder/encoder/", "decoder/decoder/")) for name in shapes):
        raise InvalidModelError("this T5X checkpoint has scanned layers, which Chorus does not read")
    rows, d_model = _shape(shapes, "token_embedder/embedding")
    heads, buckets = _shape(shapes, "encoder/relpos_bias/rel_embedding")
    _, inner = _shape(shapes, "encoder/layers_0/attention/query/kernel")
    d_ff, _ = _shape(shapes, "encoder/layers_0/mlp/wo/kernel")
    if inner % heads:
        raise InvalidModelError(
            f"encoder/layers_0/attention/query/kernel has width {inner} for {heads} heads"
        )
    gated = "encoder/layers_0/mlp/wi_0/kernel" in shapes
    size = hints.vocab_size or unpadded_vocab_size(rows, None if vocabulary is None else vocabulary.size)
    return T5Config(
        name=hints.name,
        vocab_size=size,
        padded_vocab_size=rows,
        d_model=d_model,
        d_kv=inner // heads,
        d_ff=d_ff,
        num_heads=heads,
        num_encoder_layers=_layers(shapes, "encoder"),
        num_decoder_layers=_layers(shapes, "decoder"),
        relative_buckets=buckets,
        relative_max_distance=hints.relative_max_distance or 128,
        gated=gated,
        activation=hints.activation or ("gelu" if gated else "relu"),
        tied="decoder/logits_dense/kernel" not in shapes,
        extra_ids=100 if vocabulary is None else vocabulary.extra_ids,
    )


def _shape(shapes: TensorShapes, name: str) -> tuple[int, int]:
    shape = shapes.get(name)
    if shape is None:
        raise InvalidModelError(f"the checkpoint lacks tensor {name}")
    if len(shape) != 2:
        raise InvalidModelError(f"tensor {name} has shape {list(shape)}, expected two axes")
    return shape[0], shape[1]


def _layers(shapes: TensorShapes, stack: str) -> int:
    found = [re.match(rf"{stack}/layers_(\d+)/", name) for name in shapes]
    return 1 + max((int(match.group(1)) for match in found if match), default=0)
