"""What transformers 4 and 5 say of a T5's head, and what the model computes for it: the numbers of the
reference that saved the folder."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints import OpenOptions
from chorus_server.model.checkpoints.convert import convert_checkpoint
from chorus_server.model.checkpoints.load import load_model
from chorus_server.model.checkpoints.verify import find_fingerprint
from chorus_server.model.t5 import Model
from tests.server.model.checkpoints.checkpoint_samples import (
    CHECKPOINTS,
    F32,
    assert_same,
    configure,
    opened,
    read,
)

TARGET = 1e-5


@cache
def _record(major: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CHECKPOINTS / f"saved_by_{major}" / "reference.json").read_text())
    return document


FOLDERS = [f"saved_by_{major}/{name}" for major in (4, 5) for name in _record(major)["folders"]]


def _expected(folder: str) -> dict[str, Any]:
    major, name = folder.removeprefix("saved_by_").split("/")
    found: dict[str, Any] = _record(int(major))["folders"][name]
    return found


@cache
def _compiled(functions: Any) -> Any:
    return jax.jit(functions.encode), jax.jit(functions.decode_targets)


def _logits(model: Model) -> np.ndarray[Any, Any]:
    record = _record(5)
    assert (record["input"], record["target"]) == (_record(4)["input"], _record(4)["target"])
    ids, targets = np.array([record["input"]], np.int32), np.array([[record["target"]]], np.int32)
    lengths, target_lengths = np.array([ids.shape[1]], np.int32), np.array([[targets.shape[2]]], np.int32)
    encode, decode = _compiled(model.functions)
    prompt = np.zeros((1, model.config.d_model), np.float32)
    encoded = encode(model.params, prompt, ids, lengths)
    logits = decode(model.params, encoded, lengths, targets, target_lengths)
    return np.asarray(logits, np.float64)[0, 0]


def _log_probability(logits: np.ndarray[Any, Any]) -> float:
    target = _record(5)["target"]
    shifted = logits - logits.max(-1, keepdims=True)
    normal = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return float(normal[np.arange(len(target)), target].sum())


def _error(logits: np.ndarray[Any, Any], expected: dict[str, Any]) -> float:
    reference = np.array(expected["logits"])
    return float(np.linalg.norm(logits - reference) / np.linalg.norm(reference))


def _copied(folder: str, target: Path) -> Path:
    """Converted if its weights are a torch file, which the server does not read."""
    if folder.endswith("_torch"):
        convert_checkpoint(CHECKPOINTS / folder, target, options=OpenOptions(allow_torch=True))
    else:
        shutil.copytree(CHECKPOINTS / folder, target)
    return target


@pytest.mark.parametrize("folder", FOLDERS)
def test_numbers_are_those_of_the_reference(folder: str, tmp_path: Path) -> None:
    expected = _expected(folder)
    # One name for all: models that differ in their weights alone compile once.
    model = load_model(_copied(folder, tmp_path / "m"), options=OpenOptions(name="m")).model
    assert model.config.tied == (expected["head"] != "own" and expected["scaled"])
    logits = _logits(model)
    assert _error(logits, expected) <= TARGET
    assert _log_probability(logits) == pytest.approx(expected["log_probability"], abs=1e-4)
    # The control: with the scale forgotten, or applied where there is none, it is another model.
    factor = model.config.d_model ** (0.5 if expected["scaled"] else -0.5)
    assert _error(logits * factor, expected) > 0.5


def test_the_fixtures_cover_every_kind_of_head() -> None:
    kinds = {(name[9], _expected(name)["head"], _expected(name)["scaled"]) for name in FOLDERS}
    said_by_5 = {("5", head, scaled) for head in ("own", "equal", "shared") for scaled in (True, False)}
    said_by_4 = {("4", "shared", True), ("4", "own", False), ("4", "equal", False)}
    assert kinds == said_by_4 | said_by_5
    assert not any(_expected(name)["one_tensor"] for name in FOLDERS if _expected(name)["head"] == "own")
    answers = {round(_expected(name)["log_probability"], 3) for name in FOLDERS}
    assert len(answers) >= 4


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("saved_by_4/tied", "saved_by_5/tied"),
        ("saved_by_4/tied", "saved_by_4/tied_torch"),
        ("saved_by_5/tied", "saved_by_5/tied_equal"),
        ("saved_by_4/untied", "saved_by_5/untied"),
        ("saved_by_5/untied", "saved_by_5/untied_sharded"),
        ("saved_by_5/untied", "saved_by_5/untied_torch"),
        ("saved_by_4/untied_equal", "saved_by_5/unscaled"),
        ("saved_by_5/unscaled", "saved_by_5/unscaled_equal"),
        ("saved_by_5/unscaled", "saved_by_5/unscaled_torch"),
    ],
)
def test_one_model_has_one_fingerprint(left: str, right: str) -> None:
    def fingerprint(folder: str) -> str:
        return find_fingerprint(opened(CHECKPOINTS / folder, allow_torch=True))

    assert fingerprint(left) == fingerprint(right)


def test_models_that_compute_differently_have_different_fingerprints() -> None:
    names = ("tied", "untied", "unscaled", "untied_scaled")
    assert len({find_fingerprint(opened(CHECKPOINTS / "saved_by_5" / name)) for name in names}) == 4


@pytest.mark.parametrize("to", ["orbax", "hf", "t5x"])
@pytest.mark.parametrize("name", ["tied", "untied", "unscaled", "untied_scaled"])
def test_a_head_survives_every_format(name: str, to: Any, tmp_path: Path) -> None:
    source = CHECKPOINTS / "saved_by_5" / name
    written = convert_checkpoint(source, tmp_path / "m", to=to)
    assert written.fingerprint == find_fingerprint(opened(source))
    again = opened(tmp_path / "m", vocab_size=opened(source).config.vocab_size)
    assert find_fingerprint(again) == written.fingerprint
    assert_same(dict(again.tensors(F32)), read(source))


def test_a_scaled_head_of_its_own_is_not_rounded_twice(tmp_path: Path) -> None:
    """Kept in bf16, a head of bf16 values times d_model ** -0.5 would lose what the reference keeps."""
    folder = _copied("saved_by_5/untied_scaled", tmp_path / "m")
    path = folder / "model.safetensors"
    saved = safetensors.numpy.load_file(path)
    state = {name: value.astype(ml_dtypes.bfloat16) for name, value in saved.items()}
    safetensors.numpy.save_file(state, path)
    assert opened(folder).stored_dtype == F32
    head = state["lm_head.weight"].astype(np.float32).T * np.float32(6**-0.5)
    np.testing.assert_array_equal(read(folder)["head"], head)
    assert convert_checkpoint(folder, tmp_path / "c").fingerprint == find_fingerprint(opened(folder))


def test_what_transformers_wrote_is_checked(tmp_path: Path) -> None:
    folder = _copied("saved_by_5/untied", tmp_path / "m")
    configure(folder, scale_decoder_outputs="no")
    with pytest.raises(InvalidModelError, match="scale_decoder_outputs must be true or false"):
        opened(folder)


def test_an_old_config_and_a_head_that_contradicts_it_are_refused(tmp_path: Path) -> None:
    """transformers 4 would overwrite such a head, transformers 5 would use it: neither is guessed."""
    folder = _copied("saved_by_4/untied", tmp_path / "m")
    configure(folder, tie_word_embeddings=True)
    with pytest.raises(InvalidModelError, match=r"lm_head\.weight .*differ here") as caught:
        opened(folder)
    assert "tie_word_embeddings" in caught.value.message
