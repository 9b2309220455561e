"""Where the tensors of a canonical T5 are in a T5X train state (`optimizer/target/...`).

Kernels are `[in, out]`, like ours. The relative bias is `[H, buckets]` there. The kernel of a single
activation is `wi`, those of a gated one are `wi_0` and `wi_1`. The head is `logits_dense`, and absent if
tied.
"""

from __future__ import annotations

import re

from chorus_server.model.checkpoints.reader import TensorLocation

_FIXED = {
    "embedding": ("token_embedder/embedding", False),
    "head": ("decoder/logits_dense/kernel", False),
    "encoder.relative_bias": ("encoder/relpos_bias/rel_embedding", True),
    "decoder.relative_bias": ("decoder/relpos_bias/rel_embedding", True),
    "encoder.final_norm": ("encoder/encoder_norm/scale", False),
    "decoder.final_norm": ("decoder/decoder_norm/scale", False),
}
_MODULES = {
    ("encoder", "attention"): ("attention", "pre_attention_layer_norm"),
    ("encoder", "feed_forward"): ("mlp", "pre_mlp_layer_norm"),
    ("decoder", "self_attention"): ("self_attention", "pre_self_attention_layer_norm"),
    ("decoder", "cross_attention"): ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
    ("decoder", "feed_forward"): ("mlp", "pre_mlp_layer_norm"),
}
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.([a-z_]+?)(_norm|\.(\w+))")


def t5x_place(canonical: str) -> TensorLocation:
    """Where a canonical tensor is. Raises KeyError for a name that is not canonical."""
    if canonical in _FIXED:
        return TensorLocation(*_FIXED[canonical])
    match = _LAYER.fullmatch(canonical)
    if match is None:
        raise KeyError(canonical)
    stack, layer, part, _, weight = match.groups()
    module, norm = _MODULES[stack, part]
    prefix = f"{stack}/layers_{layer}/"
    if weight is None:
        return TensorLocation(f"{prefix}{norm}/scale", False)
    return TensorLocation(f"{prefix}{module}/{'out' if weight == 'output' else weight}/kernel", False)
