"""Small checkpoints for the tests of this folder: made here, or committed under tests/fixtures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import sentencepiece

from chorus_server.model.checkpoints import OpenOptions, open_checkpoint
from chorus_server.model.checkpoints.reader import CheckpointReader
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.t5 import random_tensors
from tests.places import FIXTURES, SHARED

PARITY = FIXTURES / "parity"
CHECKPOINTS = FIXTURES / "checkpoints"
F32 = np.dtype(np.float32)

TINY = named_config("tiny")
TIED = dataclasses.replace(TINY, name="tied", tied=True, gated=False, activation="relu")

Tensors = dict[str, np.ndarray[Any, Any]]


def shared(relative: str) -> Path:
    """A path among the large files outside the repository; skips where they are absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative} of the shared files (CHORUS_SHARED)")
    return path


def weights(config: T5Config, seed: int = 0) -> Tensors:
    """Random canonical tensors, f32."""
    return dict(random_tensors(config, seed))


def read(source: str | Path, dtype: Any = F32, **options: Any) -> Tensors:
    """Every tensor of a checkpoint."""
    return dict(opened(source, **options).tensors(np.dtype(dtype)))


def opened(source: str | Path, **options: Any) -> CheckpointReader:
    return open_checkpoint(source, OpenOptions(**options))


def assert_same(left: Tensors, right: Tensors) -> None:
    """The same names and the same bits."""
    assert set(left) == set(right)
    for name, array in left.items():
        assert array.dtype == right[name].dtype
        np.testing.assert_array_equal(array, right[name], err_msg=name)


def huggingface_copy(target: Path, fixture: str = "t5_1_1") -> Path:
    """A writable copy of a committed Hugging Face folder, without its reference answers."""
    target.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(PARITY / fixture / name, target / name)
    return target


def rewrite(folder: Path, change: Any) -> None:
    """Change the state dict of a one-file Hugging Face folder: `change` gets it and may return another."""
    path = folder / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    state = change(state) or state
    safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)


def configure(folder: Path, **fields: Any) -> None:
    """Set fields of a folder's config.json; None removes one."""
    path = folder / "config.json"
    document = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def train_vocabulary(path: Path, pieces: int = 60, **more: Any) -> Path:
    """A small SentencePiece model with T5's special ids at `path`; `more` goes to the trainer."""
    prefix = path.parent / "trained"
    corpus = path.parent / "corpus.txt"
    corpus.write_text("\n".join(_sentences()))
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(prefix), vocab_size=pieces, hard_vocab_limit=False,
        character_coverage=1.0, minloglevel=2, **{**special, **more},
    )  # fmt: skip
    shutil.move(f"{prefix}.model", path)
    return path


def _sentences() -> Iterable[str]:
    words = [
        "a",
        "the",
        "cat",
        "dog",
        "sat",
        "ran",
        "on",
        "mat",
        "and",
        "then",
        "it",
        "was",
        "warm",
        "cold",
        "big",
        "small",
    ]
    for index in range(200):
        yield " ".join(words[(index * 5 + step * step) % len(words)] for step in range(8))
