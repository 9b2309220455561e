"""Where a run's arrays live: the model's own mesh of (data, model) devices, and its rules for the rest.

Weights lie where serving puts them. Optimiser state with its weight's shape lies with the weight. Smaller
state (factored statistics, counts) is on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding

from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DATA, DeviceMesh, device_mesh
from chorus_server.model.parameters import parameter_axes
from chorus_server.pretraining.settings import refused

Placement = dict[str, NamedSharding]


def make_mesh(model_devices: int, micro_batch_size: int) -> DeviceMesh | None:
    """All devices as [data, model]; None if there is only one.

    Raises:
        InvalidInputError: devices or rows cannot be divided that way; names the option.
    """
    count = jax.device_count()
    if count % model_devices:
        raise refused("model_devices", f"must divide the {count} devices, got {model_devices}")
    data = count // model_devices
    if micro_batch_size % data:
        message = f"must be a multiple of the {data} devices that share its rows, got {micro_batch_size}"
        raise refused("micro_batch_size", message)
    return None if count == 1 else device_mesh(data, model_devices)


def weight_placement(mesh: DeviceMesh, config: T5Config) -> Placement:
    """Shardings by canonical name."""
    return {name: mesh.weight(axes) for name, axes in parameter_axes(config).items()}


def state_placement(
    mesh: DeviceMesh, weights: Placement, shapes: Mapping[str, tuple[int, ...]], state: Any
) -> Any:
    """Shardings for an abstract optimiser state, in a tree of the same form."""

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = next((str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)), "")
        return weights[name] if name in weights and leaf.shape == shapes[name] else mesh.whole

    return jax.tree_util.tree_map_with_path(place, state)


def rows_placement(mesh: DeviceMesh) -> NamedSharding:
    """Sharding for every array of a batch: rows over `data`."""
    return mesh.sharding(DATA)
