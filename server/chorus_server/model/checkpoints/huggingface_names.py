"""Where the tensors of a canonical T5 are in a Hugging Face T5 or mT5 state dict.

torch's Linear stores `[out, in]`, canonical matrices are `[in, out]`. So every matrix is transposed, except
the two embedding tables and the relative biases.
"""

from __future__ import annotations

import re

from chorus_server.model.checkpoints.reader import TensorLocation

HEAD = "lm_head.weight"

_FIXED = {
    "embedding": ("shared.weight", False),
    "head": (HEAD, True),
    "encoder.relative_bias": ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", False),
    "decoder.relative_bias": ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", False),
    "encoder.final_norm": ("encoder.final_layer_norm.weight", False),
    "decoder.final_norm": ("decoder.final_layer_norm.weight", False),
}
_SUBLAYERS = {
    "encoder": {"attention": (0, "SelfAttention"), "feed_forward": (1, "DenseReluDense")},
    "decoder": {
        "self_attention": (0, "SelfAttention"),
        "cross_attention": (1, "EncDecAttention"),
        "feed_forward": (2, "DenseReluDense"),
    },
}
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "output": "o"}
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.([a-z_]+?)(_norm|\.(\w+))")

EMBEDDING_ALIASES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""torch ties these. A file may have any of them, with the same values."""

UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
"""Old versions of transformers wrote these; the model never used them."""


def huggingface_place(canonical: str) -> TensorLocation:
    """Where a canonical tensor is. Raises KeyError for a name that is not canonical."""
    if canonical in _FIXED:
        return TensorLocation(*_FIXED[canonical])
    match = _LAYER.fullmatch(canonical)
    if match is None:
        raise KeyError(canonical)
    stack, layer, part, _, weight = match.groups()
    index, module = _SUBLAYERS[stack][part]
    prefix = f"{stack}.block.{layer}.layer.{index}."
    if weight is None:
        return TensorLocation(f"{prefix}layer_norm.weight", False)
    return TensorLocation(f"{prefix}{module}.{_PROJECTIONS.get(weight, weight)}.weight", True)
