"""From a checkpoint to a model on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus_server.model.checkpoints.fingerprint_cache import cached_fingerprint, keep_fingerprint
from chorus_server.model.checkpoints.opening import OpenOptions, open_checkpoint
from chorus_server.model.checkpoints.reader import CheckpointReader, WeightSharding
from chorus_server.model.checkpoints.tensors import TensorProgress, target_dtype
from chorus_server.model.config import T5Config
from chorus_server.model.fingerprint import Fingerprinter
from chorus_server.model.layout import Layout
from chorus_server.model.mesh import DeviceMesh, check_division
from chorus_server.model.parameters import parameter_count
from chorus_server.model.t5 import Model, assemble
from chorus_server.model.vocabulary import Vocabulary


@dataclass(frozen=True)
class LoadedModel:
    """A base model, ready to compile.

    Attributes:
        vocabulary: None if the checkpoint has none and none was given.
        fingerprint: SHA-256 (hex) of architecture and weights; prompts refer to it.
        vocabulary_digest: SHA-256 (hex) of the vocabulary; None without one.
        name: shown to people.
    """

    model: Model
    vocabulary: Vocabulary | None
    fingerprint: str
    vocabulary_digest: str | None
    name: str


def load_model(
    source: str | Path,
    *,
    layout: Layout = "unrolled",
    dtype: Any = "float32",
    matrix_dtype: Any = None,
    sharding: WeightSharding | None = None,
    mesh: DeviceMesh | None = None,
    progress: TensorProgress | None = None,
    options: OpenOptions | None = None,
    accept: Callable[[T5Config], None] = lambda config: None,
) -> LoadedModel:
    """Load a base model, tensor by tensor, straight into its dtype and sharding.

    Args:
        source: a Hugging Face, T5X or Chorus folder, a hub id, or a `gs://` T5X folder.
        dtype: float32 or bfloat16. Weights are cast while they are read.
        matrix_dtype: dtype of the matrices that activations are multiplied with; None means `dtype`.
        sharding, mesh: as in `chorus_server.model.t5.assemble`.
        progress: called after each tensor.
        options: facts that the source does not give.
        accept: called with what the model looks like before a tensor is read; may raise.

    Raises:
        InvalidModelError: there is nothing to load, or a tensor is wrong, missing, extra or misshapen; names
            it.
        InvalidInputError: the mesh does not divide the model; names the axis. Nothing has been read yet.
    """
    resolved = target_dtype(dtype)
    matrices = resolved if matrix_dtype is None else target_dtype(matrix_dtype)
    reader = open_checkpoint(source, options)
    if mesh is not None:
        check_division(reader.config, mesh.model)
        sharding = sharding or mesh.weight
    accept(reader.config)
    fingerprint = reader.fingerprint or cached_fingerprint(reader)
    collector = Fingerprinter(reader.config)
    tensors: Iterable[tuple[str, Any]]
    if fingerprint is None:
        tensors = collector.watch(reader.tensors(resolved))
    else:
        tensors = reader.placed(resolved, matrices, sharding)
    if progress is not None:
        named = f"loading {reader.config.name}"
        tensors = reported(tensors, progress, named, reader.config, resolved.itemsize)
    model = assemble(reader.config, layout, dtype, tensors, sharding, mesh, matrix_dtype)
    if fingerprint is None:
        fingerprint = collector.fingerprint()
        keep_fingerprint(reader, fingerprint)
    vocabulary = load_vocabulary(reader)
    digest = None if vocabulary is None else vocabulary.digest
    return LoadedModel(model, vocabulary, fingerprint, digest, reader.config.name)


def load_vocabulary(reader: CheckpointReader) -> Vocabulary | None:
    """The vocabulary of an opened checkpoint, or None."""
    if reader.vocabulary is None:
        return None
    return Vocabulary.load(reader.vocabulary.path, extra_ids=reader.vocabulary.extra_ids)


def vocabulary_digest(reader: CheckpointReader) -> str | None:
    """SHA-256 (hex) of the vocabulary of an opened checkpoint, or None."""
    vocabulary = load_vocabulary(reader)
    return None if vocabulary is None else vocabulary.digest


def reported(
    tensors: Iterable[tuple[str, Any]], progress: TensorProgress, what: str, config: T5Config, itemsize: int
) -> Iterator[tuple[str, Any]]:
    """The same tensors. After each one `progress` is called with the bytes so far and those of all, counting
    `itemsize` bytes a value."""
    done, total = 0, parameter_count(config) * itemsize
    for name, array in tensors:
        done += array.size * itemsize
        yield name, array
        del array
        progress(what, done, total)
