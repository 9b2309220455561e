"""Hugging Face folders: what is read, and what is named when it is wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.embedded import embedded_folder
from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.convert import write_checkpoint
from chorus_server.model.checkpoints.huggingface_writer import write_huggingface
from chorus_server.model.checkpoints.safetensors_file import read_safetensors
from tests.server.model.checkpoints.checkpoint_samples import (
    F32,
    PARITY,
    TIED,
    TINY,
    assert_same,
    configure,
    huggingface_copy,
    opened,
    read,
    rewrite,
    weights,
)

SHIPPED = Path(str(embedded_folder())) / "model"
QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return huggingface_copy(tmp_path / "model")


@pytest.mark.parametrize("fixture", ["t5_1_1", "t5_1_0", "mt5"])
def test_reads_what_the_library_reads(fixture: str) -> None:
    state = safetensors.numpy.load_file(PARITY / fixture / "model.safetensors")
    tensors = read(PARITY / fixture)
    np.testing.assert_array_equal(tensors["embedding"], state["shared.weight"])
    np.testing.assert_array_equal(tensors["encoder.layers.0.attention.query"], state[QUERY].T)
    bias = state["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    np.testing.assert_array_equal(tensors["decoder.relative_bias"], bias)
    read_values = sum(array.size for array in tensors.values())
    assert read_values == sum(array.size for name, array in state.items() if "embed_tokens" not in name)


@pytest.mark.parametrize(("folder", "imported"), [(PARITY / "t5_1_1", False), (SHIPPED, True)])
def test_only_our_own_format_waits_for_orbax(folder: Path, imported: bool) -> None:
    code = f"""
import sys
from chorus_server.model.checkpoints import load_model
load_model({str(folder)!r})
print("orbax.checkpoint" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(imported)


def test_config_fields_reach_the_config(folder: Path) -> None:
    configure(folder, relative_attention_max_distance=77, layer_norm_epsilon=1e-5, dropout_rate=0.25)
    config = opened(folder).config
    assert (config.relative_max_distance, config.norm_epsilon, config.dropout_rate) == (77, 1e-5, 0.25)
    assert (config.gated, config.activation, config.tied) == (True, "gelu", False)
    assert (config.num_encoder_layers, config.num_decoder_layers, config.name) == (3, 2, "model")


@pytest.mark.parametrize("config", [TINY, TIED], ids=["1.1", "1.0"])
@pytest.mark.parametrize("limit", [2_000, 5_000_000_000], ids=["many files", "one file"])
def test_written_folders_read_back(tmp_path: Path, config: Any, limit: int) -> None:
    expected = weights(config)
    target = tmp_path / "out"
    target.mkdir()
    write_huggingface(target, config, expected.items(), dtype=F32, vocabulary=None, file_bytes=limit)
    assert (target / "model.safetensors.index.json").exists() == (limit < 10_000)
    assert_same(read(target), expected)
    assert dataclasses.replace(opened(target).config, name=config.name) == config
    assert opened(target, vocab_size=150).config.vocab_size == 150


def test_our_files_are_readable_by_the_safetensors_library(tmp_path: Path) -> None:
    expected = weights(TINY)
    write_checkpoint(
        tmp_path / "m", TINY, expected.items(), to="hf", dtype=F32, vocabulary=None, source="test"
    )
    state = safetensors.numpy.load_file(tmp_path / "m" / "model.safetensors")
    np.testing.assert_array_equal(state["lm_head.weight"], expected["head"].T)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_width_is_cast(folder: Path, dtype: Any) -> None:
    rewrite(folder, lambda state: {name: value.astype(dtype) for name, value in state.items()})
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(
        read(folder)["encoder.layers.0.attention.query"], state[QUERY].T.astype(np.float32)
    )


def test_equal_copies_of_the_embedding_are_one(folder: Path) -> None:
    before = read(folder)
    rewrite(folder, lambda state: {**state, "encoder.embed_tokens.weight": state["shared.weight"]})
    assert_same(read(folder), before)
    rewrite(folder, lambda state: {name: v for name, v in state.items() if name != "shared.weight"})
    assert_same(read(folder), before)


def test_unused_bias_of_old_files_is_ignored(folder: Path) -> None:
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    before = read(folder)
    rewrite(folder, lambda state: {**state, name: np.zeros((32, 3), np.float32)})
    assert_same(read(folder), before)


def _without(name: str) -> Any:
    return lambda state: {key: value for key, value in state.items() if key != name}


def _with(name: str, value: Any) -> Any:
    return lambda state: {**state, name: value}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without(QUERY), f"lacks tensor {QUERY} (encoder.layers.0.attention.query)"),
        (_without("lm_head.weight"), "lacks tensor lm_head.weight (head)"),
        (_with("extra.weight", np.ones(3, np.float32)), "has tensor extra.weight, which"),
        (_with(QUERY, np.ones((15, 21), np.float32)), f"{QUERY} has shape [15, 21], expected [15, 22]"),
        (_with(QUERY, np.ones((15, 22), np.int32)), f"tensor {QUERY} has dtype int32"),
        (
            _with(QUERY, np.full((15, 22), np.nan, np.float32)),
            f"tensor {QUERY} has values that are not finite",
        ),
        (_with(QUERY, np.full((15, 22), 3.4e38, np.float32)), "not finite in bfloat16"),
        (_with("decoder.embed_tokens.weight", np.ones((97, 22), np.float32)), "but differ here"),
    ],
    ids=["missing", "no head", "extra", "misshapen", "integers", "NaN", "overflows bf16", "untied copy"],
)
def test_wrong_tensor_is_named(folder: Path, change: Any, expected: str) -> None:
    read(folder, ml_dtypes.bfloat16)  # the control: the same folder before the change
    rewrite(folder, change)
    with pytest.raises(InvalidModelError) as caught:
        read(folder, ml_dtypes.bfloat16)
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"d_model": None}, "d_model"),
        ({"d_kv": "five"}, "d_kv"),
        ({"num_heads": 0}, "num_heads"),
        ({"d_ff": True}, "d_ff"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj"),
        ({"model_type": "umt5"}, "model_type"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon"),
    ],
)
def test_wrong_config_field_is_named(folder: Path, fields: dict[str, Any], field: str) -> None:
    configure(folder, **fields)
    with pytest.raises(InvalidModelError) as caught:
        opened(folder)
    assert caught.value.field == field
    assert field in caught.value.message


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("../model.safetensors", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("gone.safetensors", "names gone.safetensors"),
        (7, "outside its folder"),
    ],
)
def test_index_is_not_believed(folder: Path, place: Any, expected: str) -> None:
    document = {"weight_map": {"shared.weight": place}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    with pytest.raises(InvalidModelError, match=expected):
        opened(folder)


def test_index_that_promises_too_much_is_named(folder: Path) -> None:
    document = {"weight_map": {"absent.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    with pytest.raises(InvalidModelError, match=r"contains tensor absent\.weight"):
        opened(folder)


def test_cut_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidModelError):
            opened(folder)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InvalidModelError, match="bytes of data"):
        opened(folder)


def test_file_that_shrinks_while_read_is_an_error(folder: Path) -> None:
    tensors = opened(folder).tensors(F32)
    next(tensors)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(30_000)
    with pytest.raises(InvalidModelError, match="bytes are missing"):
        dict(tensors)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(position=st.integers(0, 4000), value=st.integers(0, 255))
def test_damaged_header_never_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    data = bytearray((PARITY / "t5_1_0" / "model.safetensors").read_bytes())
    data[position] = value
    path.write_bytes(data)
    try:
        tensors = read_safetensors(path)
    except InvalidModelError:
        return
    size = path.stat().st_size
    assert all(tensor.offset >= 0 and tensor.offset + tensor.nbytes <= size for tensor in tensors.values())
