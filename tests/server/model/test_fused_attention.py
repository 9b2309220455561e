"""Fused attention: the arguments it hands on mean the same, it lowers for CUDA, and who chooses it when."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from chorus_server.errors import InvalidInputError
from chorus_server.model import fused_attention as module
from chorus_server.model.attention import dense_attention
from chorus_server.model.config import T5Config
from chorus_server.model.fused_attention import choose_attention, fused_attention
from chorus_server.model.t5 import build

TARGET = "__cudnn$fmha"
CONFIG = T5Config(
    name="fused", vocab_size=90, padded_vocab_size=96, d_model=24, d_kv=8, d_ff=16, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1,
)  # fmt: skip


def _inputs(dtype: Any, length: int = 16, width: int = 8) -> tuple[Any, ...]:
    generator = np.random.default_rng(0)
    heads = [jnp.asarray(generator.normal(size=(3, 2, length, width)), dtype) for _ in range(3)]
    lengths = np.array([length, 1, 7])
    visible = jnp.asarray(np.arange(length)[None, None, None, :] < lengths[:, None, None, None])
    return *heads, visible, jnp.asarray(generator.normal(size=(1, 2, length, length)), jnp.float32)


def test_scale_layout_lengths_and_bias_mean_the_same() -> None:
    *heads, visible, bias = _inputs(jnp.bfloat16)
    for given in (bias, None):
        ours = fused_attention(*heads, visible, given, implementation="xla")
        dense = dense_attention(*heads, visible, given)
        assert ours.shape == dense.shape and ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), np.asarray(dense, np.float32), atol=0.03, rtol=0.03
        )
    # The controls: other lengths, or no bias, are far from it.
    other = fused_attention(*heads, jnp.roll(visible, 1, axis=0), bias, implementation="xla")
    wrong = fused_attention(*heads, visible, None, implementation="xla")
    expected = np.asarray(dense_attention(*heads, visible, bias), np.float32)
    for bad in (other, wrong):
        assert np.abs(np.asarray(bad, np.float32) - expected).max() > 0.3


@pytest.mark.parametrize("case", ["f32", "odd", "narrow", "causal", "dropped"])
def test_what_it_does_not_take_is_dense(case: str) -> None:
    length, width = (15 if case == "odd" else 16), (5 if case == "narrow" else 8)
    query, key, value, visible, bias = _inputs(jnp.float32 if case == "f32" else jnp.bfloat16, length, width)
    if case == "causal":
        visible = jnp.tril(jnp.ones((length, length), bool))[None, None]
    drop = (lambda weights: weights * 0) if case == "dropped" else None
    ours = fused_attention(query, key, value, visible, bias, drop)  # cuDNN would raise on this machine
    np.testing.assert_array_equal(ours, dense_attention(query, key, value, visible, bias, drop))


def _lowered(function: Any, *arguments: Any) -> str:
    return str(jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text())


def test_encoder_and_targets_lower_to_the_kernel_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    ints = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    model = build(CONFIG, dtype="bfloat16")
    rows = jax.ShapeDtypeStruct((4, CONFIG.d_model), jnp.bfloat16)
    encoded = jax.ShapeDtypeStruct((2, 16, CONFIG.d_model), jnp.bfloat16)
    found = {}
    for kind in ("xla", "cudnn"):
        functions = model.with_attention(kind).functions  # type: ignore[arg-type]
        encoder = _lowered(functions.encode, model.params, rows, ints((2, 16)), ints((2,)))
        axis = partial(functions.encode_tokens, longest=16)
        served = _lowered(axis, model.params, rows, ints((32,)), ints((2,)), ints((2,)))
        targets = (encoded, ints((2,)), ints((2, 3, 4)), ints((2, 3)))
        scored = _lowered(functions.target_log_probabilities, model.params, *targets)
        found[kind] = (encoder.count(TARGET), served.count(TARGET), scored.count(TARGET))
    # Rows of the token axis are gathered into blocks; causal self-attention of the targets stays dense.
    assert found == {"xla": (0, 0, 0), "cudnn": (1, 1, 1)}


def test_the_platform_chooses_with_a_fallback() -> None:
    def broken() -> None:
        raise RuntimeError("cuDNN is not detected.\nmore")

    def works() -> None:
        return None

    for dtype in ("float32", "bfloat16"):
        assert choose_attention("auto", dtype)[0] == "pairs"  # this machine
        assert choose_attention("auto", dtype, devices=2)[0] == "xla"
        assert choose_attention("xla", dtype)[0] == "xla"
        assert choose_attention("auto", dtype, platform="tpu")[0] == "xla"
    assert choose_attention("auto", "bfloat16", platform="gpu", probe=works) == ("cudnn", "the probe passed")
    kind, why = choose_attention("auto", "bfloat16", platform="gpu", probe=broken)
    assert kind == "xla" and "cuDNN is not detected." in why and "more" not in why
    assert "float32" in choose_attention("auto", "float32", platform="gpu", probe=works)[1]
    assert choose_attention("xla", "bfloat16", platform="gpu", probe=works)[0] == "xla"
    for platform, probe in (("cpu", works), ("gpu", broken)):
        with pytest.raises(InvalidInputError, match=r"attention is cudnn, but .* auto or xla") as caught:
            choose_attention("cudnn", "bfloat16", platform=platform, probe=probe)
        assert caught.value.field == "attention"


def test_the_probe_is_the_real_thing() -> None:
    with pytest.raises(RuntimeError):
        module.probe_cudnn()  # no card here
