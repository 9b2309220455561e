"""Tensors in Orbax checkpoints, one part at a time.

Orbax saves and restores whole trees. A tree of all weights would need all of them in host memory at once. So
the tensors are divided, in canonical order, into parts of at most `PART_BYTES` (or one tensor, if that is
larger). Each part is an ordinary Orbax tree checkpoint of `{canonical name: array}`.

Orbax is imported where it is used: that takes a tenth of a second, which checkpoints of other formats need
not wait for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.reader import WeightSharding
from chorus_server.model.checkpoints.tensors import HostArray
from chorus_server.model.config import T5Config
from chorus_server.model.parameters import parameter_axes, parameter_shapes

PART_BYTES = 128 * 1024 * 1024
CHUNK_BYTES = 16 * 1024 * 1024
"""Largest piece that tensorstore encodes at once. A tensor in one chunk would be in memory three times."""


def write_parts(folder: Path, config: T5Config, tensors: Iterable[tuple[str, HostArray]]) -> list[list[str]]:
    """Save tensors into `folder/00000`, `folder/00001`, ... Returns the names in each.

    Memory holds only one part if the tensors come in canonical order. Any order is saved correctly.
    """
    following = _following_size(config)
    parts: list[list[str]] = []
    part: dict[str, HostArray] = {}
    for name, array in tensors:
        part[name] = array
        if sum(held.nbytes for held in part.values()) + following.get(name, 0) * array.itemsize > PART_BYTES:
            parts.append(_save(folder / f"{len(parts):05}", part))
            part = {}
        del array
    if part:
        parts.append(_save(folder / f"{len(parts):05}", part))
    return parts


def _following_size(config: T5Config) -> dict[str, int]:
    """For each tensor, the number of elements of the next one."""
    shapes = parameter_shapes(config)
    names = list(shapes)
    return {name: int(np.prod(shapes[after])) for name, after in itertools.pairwise(names)}


def _save(path: Path, part: dict[str, HostArray]) -> list[str]:
    import orbax.checkpoint as ocp

    arguments = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES) for name in part}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), part, save_args=arguments)
    return list(part)


def restore_host(
    path: Path, config: T5Config, names: Iterable[str], dtype: np.dtype[Any]
) -> dict[str, HostArray]:
    """One part as numpy arrays in `dtype`. Raises InvalidModelError naming a missing or misshapen tensor."""
    import orbax.checkpoint as ocp

    wanted = list(names)
    with ocp.PyTreeCheckpointer() as checkpointer:
        _check(checkpointer, path, config, wanted)
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype) for name in wanted}
        return dict(checkpointer.restore(path.resolve(), restore_args=arguments))


def restore_raw(path: Path, names: Iterable[str]) -> dict[str, HostArray]:
    """Arrays of one part as they are stored. The caller checks shapes. Raises InvalidModelError."""
    import orbax.checkpoint as ocp

    wanted = list(names)
    with ocp.PyTreeCheckpointer() as checkpointer:
        stored = _stored_shapes(checkpointer, path)
        for name in wanted:
            if name not in stored:
                raise InvalidModelError(f"the checkpoint lacks tensor {name} ({path.name})")
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
        found = checkpointer.restore(path.resolve(), restore_args=arguments)
    return {name: found[name] for name in wanted}


def restore_placed(
    path: Path, config: T5Config, names: Iterable[str], dtype: np.dtype[Any], sharding: WeightSharding | None
) -> dict[str, jax.Array]:
    """One part as device arrays: each shard is read from the file in `dtype` straight to its own device."""
    import orbax.checkpoint as ocp

    shapes, axes = parameter_shapes(config), parameter_axes(config)
    default = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arguments = {
        name: ocp.ArrayRestoreArgs(
            sharding=sharding(axes[name]) if sharding else default, global_shape=shapes[name], dtype=dtype
        )
        for name in names
    }
    with ocp.PyTreeCheckpointer() as checkpointer:
        _check(checkpointer, path, config, list(arguments))
        return dict(checkpointer.restore(path.resolve(), restore_args=arguments))


def _check(checkpointer: Any, path: Path, config: T5Config, names: list[str]) -> None:
    """Orbax pads or cuts an array to the requested shape, but a wrong shape must be an error."""
    stored = _stored_shapes(checkpointer, path)
    shapes = parameter_shapes(config)
    for name in names:
        if name not in stored:
            raise InvalidModelError(f"the checkpoint lacks tensor {name} ({path.name})")
        if stored[name] != shapes[name]:
            raise InvalidModelError(
                f"tensor {name} has shape {list(stored[name])}, expected {list(shapes[name])}"
            )


def _stored_shapes(checkpointer: Any, path: Path) -> Mapping[str, tuple[int, ...]]:
    try:
        metadata = checkpointer.metadata(path.resolve()).item_metadata
    except (OSError, ValueError, KeyError) as error:
        raise InvalidModelError(f"{path} is not a part of a Chorus checkpoint: {error}") from error
    if metadata is None:
        raise InvalidModelError(f"{path} has lost its Orbax metadata; convert the model again")
    return {name: tuple(leaf.shape) for name, leaf in metadata.tree.items()}
