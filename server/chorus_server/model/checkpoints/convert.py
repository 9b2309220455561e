"""Converts any readable checkpoint, or random weights, to a folder on disk: one tensor at a time, whole or
not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.atomic_folder import whole_folder
from chorus_server.model.checkpoints.chorus_format import ChorusReader, write_chorus
from chorus_server.model.checkpoints.huggingface_writer import write_huggingface
from chorus_server.model.checkpoints.load import reported
from chorus_server.model.checkpoints.opening import OpenOptions, open_checkpoint
from chorus_server.model.checkpoints.t5x_writer import write_t5x
from chorus_server.model.checkpoints.tensors import HostArray, TensorProgress, target_dtype
from chorus_server.model.checkpoints.vocabulary_files import CANONICAL_NAME, FoundVocabulary
from chorus_server.model.config import T5Config
from chorus_server.model.parameters import parameter_count
from chorus_server.model.t5 import random_tensors

Target = Literal["orbax", "hf", "t5x"]
INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a conversion."""

    path: Path
    format: Target
    dtype: str
    fingerprint: str
    parameters: int


def convert_checkpoint(
    source: str | Path,
    target: Path,
    *,
    to: Target = "orbax",
    dtype: Any = None,
    options: OpenOptions | None = None,
    progress: TensorProgress | None = None,
    need_vocabulary: bool = False,
) -> Written:
    """Write a checkpoint in another format.

    Args:
        dtype: float32 or bfloat16; None keeps the source's. int8 stores matrices quantised; only our own
            format can.
        need_vocabulary: refuse a source without a vocabulary, before anything is written. A source in our own
            format may have none, because `chorus models init` makes such models.

    Raises:
        InvalidModelError: the source cannot be read, or the target exists; nothing is left behind.
    """
    quantise = dtype == INT8
    if quantise and to != "orbax":
        raise InvalidModelError(f"int8 is stored in our own format (orbax) only, not in {to}", field="dtype")
    reader = open_checkpoint(source, options)
    if need_vocabulary and reader.vocabulary is None and reader.format != ChorusReader.format:
        raise InvalidModelError(
            f"{source} has no {CANONICAL_NAME}, and without it the model cannot read text. Put the "
            f"{CANONICAL_NAME} of the model that it was made from into the folder, or name it with "
            "--vocabulary (transformers 5 saves tokenizer.json in its place, which Chorus does not read)",
            field="vocabulary",
        )
    resolved = reader.stored_dtype if dtype is None or quantise else target_dtype(dtype)
    tensors = reader.tensors(resolved)
    return write_checkpoint(
        target, reader.config, tensors, to=to, dtype=resolved, vocabulary=reader.vocabulary,
        source=str(source), progress=progress, quantise=quantise, parent=reader.fingerprint,
    )  # fmt: skip


def write_random(
    config: T5Config,
    target: Path,
    *,
    seed: int,
    to: Target = "orbax",
    dtype: Any = "float32",
    vocabulary: FoundVocabulary | None = None,
    progress: TensorProgress | None = None,
) -> Written:
    """Write a model of random weights. The same config and seed give the same weights."""
    resolved = target_dtype(dtype)
    tensors = ((name, array.astype(resolved, copy=False)) for name, array in random_tensors(config, seed))
    return write_checkpoint(
        target, config, tensors, to=to, dtype=resolved, vocabulary=vocabulary, source=f"random, seed {seed}",
        progress=progress,
    )  # fmt: skip


def write_checkpoint(
    target: Path,
    config: T5Config,
    tensors: Iterable[tuple[str, HostArray]],
    *,
    to: Target,
    dtype: np.dtype[Any],
    vocabulary: FoundVocabulary | None,
    source: str,
    progress: TensorProgress | None = None,
    quantise: bool = False,
    parent: str | None = None,
) -> Written:
    """Write canonical tensors, which are in `dtype`, as a checkpoint that appears whole or not at all. See
    `write_chorus` for `quantise` and `parent`."""
    if progress is not None:
        tensors = reported(tensors, progress, f"writing {target.name}", config, dtype.itemsize)
    with whole_folder(target) as folder:
        if to == "hf":
            fingerprint = write_huggingface(folder, config, tensors, dtype=dtype, vocabulary=vocabulary)
        elif to == "t5x":
            fingerprint = write_t5x(folder, config, tensors, vocabulary=vocabulary)
        else:
            fingerprint = write_chorus(
                folder, config, tensors, dtype=dtype, vocabulary=vocabulary, source=source, quantise=quantise,
                parent=parent,
            )  # fmt: skip
    return Written(target, to, INT8 if quantise else dtype.name, fingerprint, parameter_count(config))
