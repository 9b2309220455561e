"""Written files are read back to the bit, are read by the libraries they are for, and are the same each
time."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from prompts_store.artifacts import (
    FORMATS,
    ArtifactLimits,
    peft_files,
    read_artifact,
    write_artifact,
    write_peft_folder,
)
from prompts_store.artifacts.safetensors_format import MAX_HEADER_BYTES, render_safetensors
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest

VALUES = np.random.default_rng(3).normal(size=(3, 5)).astype(np.float32)
BASE = "ef" * 32
LIMITS = ArtifactLimits(width=5, max_length=8)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def manifest(**changes: object) -> PromptManifest:
    fields = {
        "digest": prompt_digest(VALUES),
        "length": 3,
        "width": 5,
        "base_fingerprint": BASE,
        "template": 'q: {q} "é" \\',
        "labels": ("no", "\u65e5\u672c"),
        "settings": {"max_new_tokens": 4, "stop": ["."]},
    }
    return PromptManifest(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=FINITE))
def test_any_finite_prompt_survives_to_the_bit(format: str, values: np.ndarray) -> None:
    data = write_artifact(values, format)
    limits = ArtifactLimits(width=values.shape[1], max_length=8)
    artifact = read_artifact(data, limits=limits)
    assert artifact.values.tobytes() == values.tobytes()
    assert artifact.digest == prompt_digest(values)
    assert write_artifact(values, format) == data


@pytest.mark.parametrize("format", ["safetensors", "peft"])
def test_what_the_version_says_travels_with_it(format: str) -> None:
    artifact = read_artifact(write_artifact(VALUES, format, manifest=manifest()), limits=LIMITS)
    found = artifact.metadata
    assert (found.template, found.labels) == ('q: {q} "é" \\', ("no", "\u65e5\u672c"))
    assert (found.settings, found.base_fingerprint) == ({"max_new_tokens": 4, "stop": ["."]}, BASE)
    assert artifact.notes == ()


def test_a_file_without_metadata_says_nothing() -> None:
    found = read_artifact(write_artifact(VALUES, "npy"), limits=LIMITS).metadata
    assert (found.template, found.labels, found.settings, found.base_fingerprint) == (None, None, None, None)


def test_a_changed_value_no_longer_fits_the_digest_in_the_file() -> None:
    data = bytearray(write_artifact(VALUES, "safetensors", manifest=manifest()))
    data[-1] ^= 1
    with pytest.raises(Exception, match="damaged or edited"):
        read_artifact(bytes(data), limits=LIMITS)


@pytest.mark.parametrize(
    ("changes", "omitted"),
    [
        ({"template": "{text}" + "x" * 16_000}, ["template"]),
        ({"labels": tuple(f"{i}" * 40 for i in range(400, 900))}, ["labels"]),
        ({"settings": {"stop": ["\u65e5" * 6000]}}, ["settings"]),
        (
            {"template": "{text}" + '"' * 16_000, "labels": tuple(f"{i}" * 40 for i in range(400, 900))},
            ["template", "labels"],
        ),
    ],
)
def test_what_does_not_fit_the_header_is_left_out_and_named(
    changes: dict[str, object], omitted: list[str]
) -> None:
    whole = manifest(**changes)
    data = write_artifact(VALUES, "safetensors", manifest=whole)
    assert int.from_bytes(data[:8], "little") <= MAX_HEADER_BYTES
    artifact = read_artifact(data, limits=LIMITS)
    assert artifact.metadata.base_fingerprint == BASE
    for name in ("template", "labels", "settings"):
        kept = getattr(artifact.metadata, name)
        assert kept == (None if name in omitted else getattr(whole, name))
    assert len(artifact.notes) == len(omitted)
    assert all(any(f"the {name} of" in note for note in artifact.notes) for name in omitted)


def test_control_a_header_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(ValueError, match="the limit is 16384"):
        render_safetensors(VALUES, tensor="prompt", metadata={"chorus": "x" * 17_000})


def test_the_library_reads_our_safetensors() -> None:
    data = write_artifact(VALUES, "safetensors", manifest=manifest())
    found = safetensors.numpy.load(data)
    assert list(found) == ["prompt"]
    assert found["prompt"].tobytes() == VALUES.tobytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (100, 4096), (12345, 7)])
def test_our_npy_is_what_numpy_writes(shape: tuple[int, int]) -> None:
    values = np.ones(shape, np.float32)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, allow_pickle=False)
    assert write_artifact(values, "npy") == buffer.getvalue()


def test_the_zip_holds_the_two_files_that_peft_loads() -> None:
    archive = zipfile.ZipFile(io.BytesIO(write_artifact(VALUES, "peft", base_model_name="google/t5-small")))
    assert archive.testzip() is None
    assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads(archive.read("adapter_config.json"))
    assert config["base_model_name_or_path"] == "google/t5-small"
    assert (config["num_virtual_tokens"], config["num_transformer_submodules"], config["token_dim"]) == (
        3,
        1,
        5,
    )
    weights = safetensors.numpy.load(archive.read("adapter_model.safetensors"))
    assert weights["prompt_embeddings"].tobytes() == VALUES.tobytes()


@pytest.mark.parametrize(
    ("name", "base", "revision"),
    [
        ("google/t5-small@v1.1", "google/t5-small", "v1.1"),
        ("google/t5-small@refs/pr/1", "google/t5-small", "refs/pr/1"),
        ("/models/a@b", "/models/a@b", None),
        ("t5@b", "t5@b", None),
        (None, None, None),
    ],
)
def test_a_pinned_base_is_named_as_peft_names_it(
    name: str | None, base: str | None, revision: str | None
) -> None:
    config = json.loads(peft_files(VALUES, base_model_name=name)["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (base, revision)


def test_a_folder_is_the_zip_unpacked(tmp_path: Path) -> None:
    write_peft_folder(tmp_path / "adapter", VALUES, manifest=manifest(), base_model_name="b")
    files = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}
    assert files == peft_files(VALUES, manifest=manifest(), base_model_name="b")
    artifact = read_artifact(tmp_path / "adapter", limits=LIMITS)
    assert artifact.values.tobytes() == VALUES.tobytes()
    assert artifact.metadata.base_model_name == "b"


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="choose another"):
        write_peft_folder(tmp_path / "adapter", VALUES)
    assert [path.name for path in tmp_path.rglob("*")] == ["adapter", "mine"]


def test_a_failing_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_peft_folder(tmp_path / "adapter", VALUES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [VALUES.astype(np.float64), VALUES.ravel(), VALUES[:0], VALUES[:, :0], VALUES.astype(np.int32)]
)
def test_only_a_prompt_is_written(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[P, D\] float32"):
        write_artifact(wrong, "safetensors")


def test_another_prompt_s_manifest_is_not_written() -> None:
    with pytest.raises(ValueError, match="another prompt"):
        write_artifact(VALUES + 1, "safetensors", manifest=manifest())


@pytest.mark.parametrize("format", FORMATS)
def test_memory_order_does_not_matter(format: str) -> None:
    assert write_artifact(np.asfortranarray(VALUES), format) == write_artifact(VALUES, format)
    assert write_artifact(VALUES.astype(">f4"), format) == write_artifact(VALUES, format)
