"""What every checkpoint format offers: a config, and canonical tensors one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.tensors import BFLOAT16, FLOAT32, HostArray, RawTensor, read_canonical
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary
from chorus_server.model.config import T5Config
from chorus_server.model.parameters import Axes, is_matrix, parameter_shapes

# Where the weight with these axes lives.
WeightSharding = Callable[[Axes], jax.sharding.Sharding]
_NAMED_IN_ERRORS = 3


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """Where a canonical tensor is in a file: its name there, whether its axes are swapped, and the factor for
    its values."""

    name: str
    transpose: bool
    scale: float = 1.0


class CheckpointReader(ABC):
    """An opened checkpoint. Opening reads only names and shapes.

    Attributes:
        config: the architecture.
        vocabulary: the SentencePiece model beside the weights, if there is one.
        fingerprint: as stored in the checkpoint; None if the format has no place for it.
        identity: names, sizes and times of the files, by which unchanged files are recognised; None if
            unknown.
        stored_dtype: f32; or bf16 if every tensor is stored in bf16.
        tensor_digests: by canonical name, if the format keeps them.
        content_fingerprint: of a quantised checkpoint's own values; its `fingerprint` is then that of its
            parent.
    """

    format: ClassVar[str]
    config: T5Config
    vocabulary: FoundVocabulary | None = None
    fingerprint: str | None = None
    identity: str | None = None
    stored_dtype: np.dtype[Any] = FLOAT32
    tensor_digests: Mapping[str, str] = MappingProxyType({})
    content_fingerprint: str | None = None

    @abstractmethod
    def tensors(self, dtype: np.dtype[Any]) -> Iterator[tuple[str, HostArray]]:
        """Every canonical tensor once, cast to `dtype`. Each is read when it is asked for, and none is kept.

        Raises:
            InvalidModelError: a tensor cannot be read, or has values that are not finite; names it.
        """

    def placed(
        self, dtype: np.dtype[Any], matrix_dtype: np.dtype[Any], sharding: WeightSharding | None
    ) -> Iterator[tuple[str, HostArray | jax.Array]]:
        """Like `tensors`, for a model that will live under `sharding` and keeps its matrices in
        `matrix_dtype`. A format that can do so restores each shard to its own device; others yield host
        arrays. Matrices come in `matrix_dtype` where that saves work, else in `dtype`."""
        yield from self.tensors(dtype)


class PlacedReader(CheckpointReader):
    """A reader over named raw tensors and a table of their locations."""

    def __init__(
        self,
        config: T5Config,
        raw: Mapping[str, RawTensor],
        place: Callable[[str], TensorLocation],
        unused: frozenset[str],
    ) -> None:
        self.config = config
        self._matched = match_tensors(config, raw, place, unused)
        # A scaled tensor has values that the bf16 of its file would round.
        kinds = {tensor.dtype if place.scale == 1 else FLOAT32 for place, tensor in self._matched.values()}
        self.stored_dtype = BFLOAT16 if kinds == {BFLOAT16} else FLOAT32

    def tensors(self, dtype: np.dtype[Any]) -> Iterator[tuple[str, HostArray]]:
        for canonical, (place, raw) in self._matched.items():
            yield canonical, read_canonical(place.name, raw, place.transpose, dtype, place.scale)

    def placed(
        self, dtype: np.dtype[Any], matrix_dtype: np.dtype[Any], sharding: WeightSharding | None
    ) -> Iterator[tuple[str, HostArray | jax.Array]]:
        for canonical, (place, raw) in self._matched.items():
            own = matrix_dtype if is_matrix(canonical) else dtype
            yield canonical, read_canonical(place.name, raw, place.transpose, own, place.scale)


def match_tensors(
    config: T5Config,
    raw: Mapping[str, RawTensor],
    place: Callable[[str], TensorLocation],
    unused: frozenset[str],
) -> dict[str, tuple[TensorLocation, RawTensor]]:
    """Pair every canonical tensor with its raw one.

    Args:
        unused: names that may be present and are not read.

    Raises:
        InvalidModelError: a tensor is missing, misshapen or extra; the error uses the file's name for it.
    """
    shapes = parameter_shapes(config)
    places = {canonical: place(canonical) for canonical in shapes}
    missing = [f"{found.name} ({name})" for name, found in places.items() if found.name not in raw]
    if missing:
        raise InvalidModelError(f"the checkpoint lacks {_listed('tensor', missing)}")
    extra = sorted(set(raw) - {found.name for found in places.values()} - unused)
    if extra:
        raise InvalidModelError(
            f"the checkpoint has {_listed('tensor', extra)}, which this architecture does not have"
        )
    wrong = []
    for canonical, found in places.items():
        expected = shapes[canonical][::-1] if found.transpose else shapes[canonical]
        if tuple(raw[found.name].shape) != expected:
            wrong.append(f"{found.name} has shape {list(raw[found.name].shape)}, expected {list(expected)}")
    if wrong:
        raise InvalidModelError(f"{len(wrong)} misshapen: {_joined(wrong, '; ')}")
    return {canonical: (found, raw[found.name]) for canonical, found in places.items()}


def _listed(noun: str, names: list[str]) -> str:
    return f"{noun if len(names) == 1 else f'{len(names)} {noun}s'} {_joined(names, ', ')}"


def _joined(parts: list[str], separator: str) -> str:
    shown = separator.join(parts[:_NAMED_IN_ERRORS])
    rest = len(parts) - _NAMED_IN_ERRORS
    return f"{shown}{separator}and {rest} more" if rest > 0 else shown
