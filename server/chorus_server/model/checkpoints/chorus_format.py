"""Our own checkpoint format: a folder that a server restores straight into its sharding and dtype.

chorus.json      what this is, written last: without it the folder is not a checkpoint
config.json      the fields of T5Config
spiece.model     the vocabulary, when there is one
tensors/00000/   Orbax trees of canonical tensors (see `orbax_parts`); int8 and scales when `quantised`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import read_json, write_json
from chorus_server.model.checkpoints.orbax_parts import restore_host, restore_placed, restore_raw, write_parts
from chorus_server.model.checkpoints.quantised import KIND, Quantiser, dequantised, stored_names
from chorus_server.model.checkpoints.reader import CheckpointReader, WeightSharding
from chorus_server.model.checkpoints.tensors import HostArray, target_dtype
from chorus_server.model.checkpoints.vocabulary_files import (
    FoundVocabulary,
    known_vocabulary,
    write_vocabulary,
)
from chorus_server.model.config import T5Config
from chorus_server.model.fingerprint import Fingerprinter
from chorus_server.model.parameters import parameter_shapes

CHECKPOINT_FORMAT = "chorus-checkpoint"
CHECKPOINT_VERSION = 1
CHECKPOINT_METADATA = "chorus.json"


class ChorusReader(CheckpointReader):
    """A folder in our own format."""

    format: ClassVar[str] = "chorus"

    def __init__(self, folder: Path, *, vocabulary: Path | None = None, name: str = "") -> None:
        """Open a folder.

        Raises:
            InvalidModelError: the version is another, the config is damaged, or tensors are missing from the
                list.
        """
        self._folder = folder
        self.metadata = _read_metadata(folder)
        self.config = read_config(folder / "config.json", name)
        self.vocabulary = known_vocabulary(folder, vocabulary, self.config)
        self.fingerprint = self.metadata["fingerprint"]
        self.tensor_digests = self.metadata.get("tensor_digests", {})
        self.stored_dtype = target_dtype(self.metadata["dtype"])
        self._parts: list[list[str]] = self.metadata["parts"]
        self._quantised = _is_quantised(self.metadata)
        if self._quantised:
            self.content_fingerprint = self.metadata["quantisation"]["fingerprint"]
        expected = stored_names(self.config) if self._quantised else list(parameter_shapes(self.config))
        _check_names(expected, self._parts)

    def tensors(self, dtype: np.dtype[Any]) -> Iterator[tuple[str, HostArray]]:
        if self._quantised:
            raw = (restore_raw(self._path(index), names) for index, names in enumerate(self._parts))
            yield from dequantised(self.config, raw, dtype)
            return
        for index, names in enumerate(self._parts):
            part = restore_host(self._path(index), self.config, names, dtype)
            while part:
                name = next(iter(part))
                yield name, part.pop(name)

    def placed(
        self, dtype: np.dtype[Any], matrix_dtype: np.dtype[Any], sharding: WeightSharding | None
    ) -> Iterator[tuple[str, HostArray | jax.Array]]:
        if self._quantised:
            yield from self.tensors(dtype)
            return
        for index, names in enumerate(self._parts):
            yield from restore_placed(self._path(index), self.config, names, dtype, sharding).items()

    def _path(self, index: int) -> Path:
        return self._folder / "tensors" / f"{index:05}"


def is_chorus(folder: Path) -> bool:
    """Whether a folder has our own format."""
    return (folder / CHECKPOINT_METADATA).is_file()


def write_chorus(
    folder: Path,
    config: T5Config,
    tensors: Iterable[tuple[str, HostArray]],
    *,
    dtype: np.dtype[Any],
    vocabulary: FoundVocabulary | None,
    source: str,
    quantise: bool = False,
    parent: str | None = None,
) -> str:
    """Write a checkpoint into an empty folder and return its fingerprint.

    Args:
        tensors: canonical, in `dtype`; taken one at a time.
        source: where the weights came from; shown to people.
        quantise: whether to store matrices in int8. The fingerprint is then that of `tensors`, the parent.
        parent: fingerprint of the parent, if `tensors` themselves come from a quantised checkpoint.
    """
    facts: dict[str, Any]
    if quantise:
        quantiser = Quantiser(config)
        parts = write_parts(folder / "tensors", config, quantiser.stored(tensors))
        fingerprint, digests = parent or quantiser.parent, quantiser.tensor_digests
        facts = {"dtype": "float32", "quantisation": {"kind": KIND, "fingerprint": quantiser.content}}
    else:
        collector = Fingerprinter(config)
        parts = write_parts(folder / "tensors", config, collector.watch(tensors))
        fingerprint, digests = collector.fingerprint(), collector.tensor_digests
        facts = {"dtype": dtype.name, "quantisation": None}
    write_json(folder / "config.json", dataclasses.asdict(config))
    document = {
        "format": CHECKPOINT_FORMAT,
        "format_version": CHECKPOINT_VERSION,
        "fingerprint": fingerprint,
        "vocabulary_digest": write_vocabulary(folder, vocabulary),
        **facts,
        "source": source,
        "parts": parts,
        "tensor_digests": digests,
    }
    write_json(folder / CHECKPOINT_METADATA, document)
    return fingerprint


def read_config(path: Path, name: str = "") -> T5Config:
    """The T5Config in our `config.json`. Raises InvalidModelError if fields are unknown or missing."""
    fields = read_json(path)
    known = {field.name for field in dataclasses.fields(T5Config)}
    if unknown := sorted(set(fields) - known):
        raise InvalidModelError(
            f"config.json has the unknown field {unknown[0]}; it was not written by Chorus"
        )
    try:
        config = T5Config(**fields)
    except TypeError as error:
        raise InvalidModelError(f"config.json is not complete: {error}") from error
    return dataclasses.replace(config, name=name) if name else config


def _read_metadata(folder: Path) -> dict[str, Any]:
    metadata = read_json(folder / CHECKPOINT_METADATA)
    if metadata.get("format") != CHECKPOINT_FORMAT or metadata.get("format_version") != CHECKPOINT_VERSION:
        raise InvalidModelError(
            f"{CHECKPOINT_METADATA} describes {metadata.get('format')!r} version "
            f"{metadata.get('format_version')!r}; this release reads {CHECKPOINT_FORMAT!r} version "
            f"{CHECKPOINT_VERSION}"
        )
    for key in ("fingerprint", "dtype", "parts"):
        if key not in metadata:
            raise InvalidModelError(f"{CHECKPOINT_METADATA} has no {key}; convert the model again")
    return metadata


def _is_quantised(metadata: dict[str, Any]) -> bool:
    quantisation = metadata.get("quantisation")
    if quantisation is None:
        return False
    if (
        not isinstance(quantisation, dict)
        or quantisation.get("kind") != KIND
        or "fingerprint" not in quantisation
    ):
        raise InvalidModelError(
            f"{CHECKPOINT_METADATA} names a quantisation that this release does not read; it reads {KIND}"
        )
    return True


def _check_names(expected: list[str], parts: list[list[str]]) -> None:
    names = [name for part in parts for name in part]
    if missing := [name for name in expected if name not in set(names)]:
        raise InvalidModelError(f"the checkpoint lacks tensor {missing[0]} ({len(missing)} in all)")
    if extra := [name for name in names if name not in expected]:
        raise InvalidModelError(f"the checkpoint has tensor {extra[0]}, which is not in this architecture")
