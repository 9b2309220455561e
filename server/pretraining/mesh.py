"""Where a run's arrays live: a mesh of (data, model) devices with named shardings.

Rows of a batch are divided over `data`. Of the weights, vocabulary, heads and feed-forward are divided over
`model` where they divide evenly; the rest is on every device. Optimiser state of a weight's shape lies with
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from server.model.config import T5Config
from server.model.parameters import parameter_axes, parameter_shapes
from server.pretraining.settings import refused

DIVIDED = ("vocab", "heads", "mlp")

Placement = dict[str, NamedSharding]


def make_mesh(model_devices: int, micro_batch_size: int) -> Mesh | None:
    """All devices as [data, model]; None where there is one.

    Raises:
        InvalidInputError: devices or rows that cannot be divided so; names the option.
    """
    devices = jax.devices()
    if len(devices) % model_devices:
        raise refused("model_devices", f"must divide the {len(devices)} devices, got {model_devices}")
    data = len(devices) // model_devices
    if micro_batch_size % data:
        message = f"must be a multiple of the {data} devices that share its rows, got {micro_batch_size}"
        raise refused("micro_batch_size", message)
    if len(devices) == 1:
        return None
    return Mesh(np.array(devices).reshape(data, model_devices), ("data", "model"))


def weight_placement(mesh: Mesh, config: T5Config) -> Placement:
    """Canonical name -> sharding."""
    size = mesh.shape["model"]
    placed = {}
    for name, axes in parameter_axes(config).items():
        shape = parameter_shapes(config)[name]
        # A head is never cut: relative_bias has H columns, projections H * K.
        whole = {"heads": config.num_heads}
        parts = [
            "model" if axis in DIVIDED and whole.get(axis, length) % size == 0 else None
            for axis, length in zip(axes, shape, strict=True)
        ]
        placed[name] = NamedSharding(mesh, _spec(*parts))
    return placed


def state_placement(mesh: Mesh, weights: Placement, shapes: Mapping[str, tuple[int, ...]], state: Any) -> Any:
    """Shardings of an abstract optimiser state, a tree like it."""
    everywhere = NamedSharding(mesh, _spec())

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = next((str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)), "")
        return weights[name] if name in weights and leaf.shape == shapes[name] else everywhere

    return jax.tree_util.tree_map_with_path(place, state)


def rows_placement(mesh: Mesh) -> NamedSharding:
    """Of every array of a batch: rows over `data`."""
    return NamedSharding(mesh, _spec("data"))


def _spec(*parts: str | None) -> PartitionSpec:
    return PartitionSpec(*parts)  # type: ignore[no-untyped-call]
