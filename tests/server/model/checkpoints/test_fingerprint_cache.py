"""One model, one fingerprint: whatever the format, the dtype, the padding."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints import load_model
from chorus_server.model.checkpoints.convert import convert_checkpoint, write_checkpoint
from chorus_server.model.checkpoints.fingerprint_cache import cached_fingerprint
from chorus_server.model.checkpoints.verify import find_fingerprint, verify_fingerprint
from chorus_server.model.config import T5Config
from chorus_server.model.fingerprint import Fingerprinter
from chorus_server.model.parameters import is_matrix, parameter_shapes
from chorus_server.model.t5 import tensors_of
from tests.server.model.checkpoints.checkpoint_samples import (
    CHECKPOINTS,
    F32,
    PARITY,
    TIED,
    TINY,
    assert_same,
    opened,
    read,
    shared,
    weights,
)

FORMATS = ("orbax", "hf", "t5x")


def fingerprint(config: T5Config, tensors: dict[str, Any]) -> str:
    collector = Fingerprinter(config)
    for name, array in tensors.items():
        collector.add(name, array)
    return collector.fingerprint()


def test_definition() -> None:
    """Computed here by hand, from design.md's sentence: guards the format for ever."""
    tensors = weights(TIED)
    used = {**tensors, "embedding": tensors["embedding"][: TIED.vocab_size]}
    rows = [
        [
            name,
            list(used[name].shape),
            hashlib.sha256(used[name].astype(ml_dtypes.bfloat16).tobytes()).hexdigest(),
        ]
        for name in sorted(used)
    ]
    architecture = {
        key: value
        for key, value in dataclasses.asdict(TIED).items()
        if key
        not in (
            "name",
            "padded_vocab_size",
            "dropout_rate",
            "pad_id",
            "eos_id",
            "decoder_start_id",
            "extra_ids",
        )
    }
    document = {"architecture": architecture, "tensors": rows}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert fingerprint(TIED, tensors) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize("config", [TINY, TIED], ids=["1.1", "1.0"])
def test_equal_in_every_format_and_dtype(tmp_path: Path, config: T5Config) -> None:
    config = dataclasses.replace(
        config, padded_vocab_size=config.vocab_size
    )  # HF and T5X do not tell padding
    expected = fingerprint(config, weights(config))
    for to in FORMATS:
        for dtype in ("float32", "bfloat16"):
            target = tmp_path / f"{to}-{dtype}"
            resolved = np.dtype(np.float32 if dtype == "float32" else ml_dtypes.bfloat16)
            tensors = ((name, array.astype(resolved)) for name, array in weights(config).items())
            written = write_checkpoint(
                target, config, tensors, to=to, dtype=resolved, vocabulary=None, source="test"
            )
            assert written.fingerprint == expected, (to, dtype)
            reader = opened(target)
            assert reader.stored_dtype == resolved
            assert verify_fingerprint(reader) == expected, (to, dtype)
            assert load_model(target, dtype="bfloat16").fingerprint == expected, (to, dtype)


@pytest.mark.parametrize("name", ["sharded_f32", "tied_bf16"])
def test_equal_for_torch_files(tmp_path: Path, name: str) -> None:
    expected = find_fingerprint(opened(CHECKPOINTS / name / "expected"))
    assert find_fingerprint(opened(CHECKPOINTS / name, allow_torch=True)) == expected
    assert_same(read(CHECKPOINTS / name, allow_torch=True), read(CHECKPOINTS / name / "expected"))


def test_our_t5x_fixture_is_the_parity_model() -> None:
    assert_same(read(CHECKPOINTS / "t5x_own"), read(PARITY / "t5_1_1"))
    same = find_fingerprint(opened(PARITY / "t5_1_1"))
    assert find_fingerprint(opened(CHECKPOINTS / "t5x_own")) == same


def test_padding_rows_do_not_count() -> None:
    tensors = weights(TINY)
    wider = dataclasses.replace(TINY, padded_vocab_size=256)
    padded = {
        **tensors,
        "embedding": np.concatenate([tensors["embedding"], np.ones((88, 26), np.float32)]),
        "head": np.concatenate([tensors["head"], np.ones((26, 88), np.float32)], axis=1),
    }
    assert fingerprint(wider, padded) == fingerprint(TINY, tensors)
    padded["embedding"][TINY.vocab_size - 1] = 9  # the control: the last row that counts
    assert fingerprint(wider, padded) != fingerprint(TINY, tensors)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(parameter_shapes(TIED))), position=st.integers(0, 10_000))
def test_any_visible_change_is_seen(name: str, position: int) -> None:
    tensors = weights(TIED)
    before = fingerprint(TIED, tensors)
    used = tensors[name][: TIED.vocab_size].reshape(-1)
    value = used[position % used.size]
    used[position % used.size] = value * np.float32(1.0001) if abs(value) > 1e-30 else 1e-36
    invisible = value.astype(ml_dtypes.bfloat16) == used[position % used.size].astype(ml_dtypes.bfloat16)
    assert (fingerprint(TIED, tensors) == before) == bool(invisible)
    used[position % used.size] = value + 1
    assert fingerprint(TIED, tensors) != before


@pytest.mark.parametrize("field", ["relative_max_distance", "activation", "norm_epsilon"])
def test_architecture_counts(field: str) -> None:
    value = {"relative_max_distance": 129, "activation": "gelu", "norm_epsilon": 1e-5}[field]
    changed = dataclasses.replace(TIED, **{field: value})
    assert fingerprint(changed, weights(TIED)) != fingerprint(TIED, weights(TIED))


def test_kept_fingerprint_is_used_until_a_file_changes(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(PARITY / "t5_1_0", folder)
    first = load_model(folder).fingerprint
    assert cached_fingerprint(opened(folder)) == first
    tensors = {
        **read(folder),
        "encoder.final_norm": np.full(read(folder)["encoder.final_norm"].shape, 2, F32),
    }
    shutil.rmtree(folder)
    write_checkpoint(
        folder,
        opened(PARITY / "t5_1_0").config,
        tensors.items(),
        to="hf",
        dtype=F32,
        vocabulary=None,
        source="",
    )
    assert cached_fingerprint(opened(folder)) is None
    assert load_model(folder).fingerprint != first


@pytest.mark.parametrize("stored", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_start_that_knows_the_fingerprint_reads_matrices_as_they_are_kept_with_the_same_bits(
    tmp_path: Path, stored: Any
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(PARITY / "t5_1_1", folder)
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    state = {name: (array * (1 + 1e-4)).astype(stored) for name, array in state.items()}
    safetensors.numpy.save_file(state, folder / "model.safetensors")
    first = load_model(folder, matrix_dtype="bfloat16")
    assert cached_fingerprint(opened(folder)) == first.fingerprint
    second = load_model(folder, matrix_dtype="bfloat16")
    assert_same(
        {name: np.asarray(array) for name, array in tensors_of(second.model)},
        {name: np.asarray(array) for name, array in tensors_of(first.model)},
    )
    matrices = np.dtype(ml_dtypes.bfloat16)
    for name, array in opened(folder).placed(F32, matrices, None):
        assert array.dtype == (matrices if is_matrix(name) else F32), name


def test_changed_tensor_of_a_stored_fingerprint_is_named(tmp_path: Path) -> None:
    tensors = weights(TINY)
    write_checkpoint(
        tmp_path / "a", TINY, tensors.items(), to="orbax", dtype=F32, vocabulary=None, source="test"
    )
    tensors["decoder.final_norm"] = tensors["decoder.final_norm"] * 2
    write_checkpoint(
        tmp_path / "b", TINY, tensors.items(), to="orbax", dtype=F32, vocabulary=None, source="test"
    )
    verify_fingerprint(opened(tmp_path / "b"))
    shutil.copyfile(tmp_path / "a" / "chorus.json", tmp_path / "b" / "chorus.json")
    with pytest.raises(InvalidModelError, match=r"tensor decoder\.final_norm has changed"):
        verify_fingerprint(opened(tmp_path / "b"))


@pytest.mark.shared
def test_real_model_through_our_format(tmp_path: Path) -> None:
    source = shared("models/flan-t5-small-title")
    original = load_model(source)
    written = convert_checkpoint(source, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert written.dtype == "bfloat16"
    assert again.fingerprint == written.fingerprint == original.fingerprint
    assert again.vocabulary_digest == original.vocabulary_digest
    assert original.vocabulary is not None
    assert again.vocabulary is not None
    assert again.vocabulary.encode("a great film") == original.vocabulary.encode("a great film")
    assert opened(tmp_path / "m").config == opened(source).config
    assert_same(read(tmp_path / "m"), read(source))
