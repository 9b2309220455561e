"""int8 at rest: a matrix is stored as whole numbers from -127 to 127 with one f32 scale for each channel, and
restored on loading.

This takes a quarter of the bytes of f32. Nothing computes in int8. A channel is a token's row in the
embedding, and an output column everywhere else. Vectors and relative biases stay f32. A quantised checkpoint
has its parent's fingerprint, so that the parent's prompts fit it, and beside it the fingerprint of its own
values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.tensors import HostArray
from chorus_server.model.config import T5Config
from chorus_server.model.fingerprint import Fingerprinter
from chorus_server.model.parameters import parameter_shapes

KIND = "int8_per_channel"
SCALE = ".scale"
LARGEST = 127

Raw = Mapping[str, HostArray]


def is_quantised(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a canonical tensor is stored in int8."""
    return len(shape) == 2 and not name.endswith("relative_bias")


def channel_axis(name: str) -> int:
    """The axis along which each place has a scale."""
    return 0 if name == "embedding" else 1


def quantise(name: str, array: HostArray) -> tuple[HostArray, HostArray]:
    """[I, O] -> int8 [I, O] and scales f32 [channels]. Each value is off by at most half its scale."""
    wide = array.astype(np.float32, copy=False)
    largest = np.abs(wide).max(axis=1 - channel_axis(name))
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(wide / _across(name, scales)).astype(np.int8), scales


def dequantise(name: str, values: HostArray, scales: HostArray, dtype: np.dtype[Any]) -> HostArray:
    """The inverse, in `dtype`; computed in f32."""
    return (values.astype(np.float32) * _across(name, scales)).astype(dtype, copy=False)


class Quantiser:
    """Turns canonical tensors into stored ones on their way to the disk.

    Attributes:
        parent: fingerprint of the tensors that came in.
        content: fingerprint of what the stored values give.
    """

    def __init__(self, config: T5Config) -> None:
        self._came, self._stored = Fingerprinter(config), Fingerprinter(config)

    @property
    def parent(self) -> str:
        return self._came.fingerprint()

    @property
    def content(self) -> str:
        return self._stored.fingerprint()

    @property
    def tensor_digests(self) -> dict[str, str]:
        """Digests of the stored values, by canonical name."""
        return self._stored.tensor_digests

    def stored(self, tensors: Iterable[tuple[str, HostArray]]) -> Iterator[tuple[str, HostArray]]:
        """What is written for each tensor."""
        for name, array in self._came.watch(tensors):
            if is_quantised(name, array.shape):
                values, scales = quantise(name, array)
                self._stored.add(name, dequantise(name, values, scales, np.dtype(np.float32)))
                yield name + SCALE, scales
                yield name, values
            else:
                self._stored.add(name, array)
                yield name, array.astype(np.float32, copy=False)
            del array


def dequantised(
    config: T5Config, parts: Iterable[Raw], dtype: np.dtype[Any]
) -> Iterator[tuple[str, HostArray]]:
    """The canonical tensors, from raw parts in order. A tensor's scales come before it.

    Raises:
        InvalidModelError: an array has another shape or type, or a scale is not a positive number.
    """
    shapes, scales = parameter_shapes(config), dict[str, HostArray]()
    for part in parts:
        scales.update((name, array) for name, array in part.items() if name.endswith(SCALE))
        for name, array in part.items():
            if name.endswith(SCALE):
                continue
            if not is_quantised(name, shapes[name]):
                yield name, _checked(name, array, shapes[name], np.float32).astype(dtype, copy=False)
                continue
            channels = (shapes[name][channel_axis(name)],)
            factors = _checked(name + SCALE, scales.pop(name + SCALE, None), channels, np.float32)
            if not (np.isfinite(factors) & (factors > 0)).all():
                raise InvalidModelError(f"tensor {name + SCALE} has scales that are not positive numbers")
            yield name, dequantise(name, _checked(name, array, shapes[name], np.int8), factors, dtype)


def stored_names(config: T5Config) -> list[str]:
    """Every array of a quantised checkpoint."""
    return [
        stored
        for name, shape in parameter_shapes(config).items()
        for stored in ((name + SCALE, name) if is_quantised(name, shape) else (name,))
    ]


def _across(name: str, scales: HostArray) -> HostArray:
    return scales[:, None] if channel_axis(name) == 0 else scales[None, :]


def _checked(name: str, found: HostArray | None, shape: tuple[int, ...], dtype: Any) -> HostArray:
    if found is None:
        raise InvalidModelError(
            f"the checkpoint lacks tensor {name}, or has it after the tensor that needs it"
        )
    if found.shape != shape or found.dtype != dtype:
        raise InvalidModelError(
            f"tensor {name} is {found.dtype}{list(found.shape)}, expected {np.dtype(dtype)}{list(shape)}"
        )
    return found
