"""Which part of each array lives on which device: a mesh of two axes, `data` and `model`.

The `model` axis splits every tensor: attention by heads, the feed-forward by F, the head by vocabulary, and
the embedding (with the prompt rows) by D, so that a lookup needs no other device. The `data` axis repeats the
weights and splits the rows of a batch and the slots of a block. A device of a `data` x `model` mesh holds 1 /
`model` of the weights. The devices that have one place on the `data` axis are a group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from chorus_server.errors import InvalidInputError
from chorus_server.model.config import T5Config
from chorus_server.model.parameters import Axes, Axis

DATA, MODEL = "data", "model"

_CUT: dict[Axis, str | None] = {
    "heads": MODEL,
    "mlp": MODEL,
    "vocab": MODEL,
    "embed": None,
    "buckets": None,
    "layers": None,
}


@dataclass(frozen=True)
class DeviceMesh:
    """Devices in a grid. It is hashable, so that it can be part of a static jit argument.

    Attributes:
        mesh: axes `data` and `model`; abstract if only sizes matter.
    """

    mesh: Any

    def __str__(self) -> str:
        return f"{self.data} x {self.model}"

    @property
    def data(self) -> int:
        """Number of devices that share the rows of a batch."""
        return int(self.mesh.shape[DATA])

    @property
    def model(self) -> int:
        """Number of devices that share each tensor."""
        return int(self.mesh.shape[MODEL])

    @property
    def size(self) -> int:
        return self.data * self.model

    @property
    def whole(self) -> NamedSharding:
        """Sharding with a copy on each device."""
        return self.sharding()

    @property
    def prompt_rows(self) -> NamedSharding:
        """Sharding of the prompt table [R, D], which is looked up together with the embedding."""
        return self.sharding(None, MODEL)

    def sharding(self, *axes: str | None) -> NamedSharding:
        """A sharding that splits each axis of an array over the given mesh axis; None does not split it."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    def weight(self, axes: Axes) -> NamedSharding:
        """Where a canonical tensor lives, given the logical names of its axes (see `parameters`)."""
        if axes == ("vocab", "embed"):
            return self.prompt_rows
        return self.sharding(*(_CUT[axis] for axis in axes))

    def rows(self, count: int, after: int = 0) -> NamedSharding:
        """Sharding of an array whose first axis is `count` rows of a batch, followed by `after` axes. If the
        count does not divide (a batch of one), every part of the data axis computes all of it."""
        return self.sharding(DATA if count % self.data == 0 else None, *(None,) * after)

    def slots(self, layout: str) -> NamedSharding:
        """Sharding of encoder memory and self-attention state: slots over `data`, heads over `model`."""
        return self.sharding(*(None,) * (layout == "scanned"), DATA, MODEL)

    def by_group(self, function: Callable[..., Any], whole: tuple[Any, ...], cut: Any) -> Any:
        """What `function(*whole, part)` gives in each group, where `part` is the group's part of every array
        in `cut`. Results get a first axis of groups.

        Inside, an array has the rows of one group only, so nothing travels from one group to another.
        """

        def of_one(*arguments: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf[None], function(*arguments))

        each, every = PartitionSpec(DATA), (PartitionSpec(),) * len(whole)  # type: ignore[no-untyped-call]
        return jax.shard_map(
            of_one,
            mesh=self.mesh,
            in_specs=(*every, each),
            out_specs=each,
            axis_names={DATA},
            check_vma=False,  # as of JAX 0.10.2 its check does not know `searchsorted`
        )(*whole, cut)

    def keep_rows(self, x: Float[Array, "B *rest"]) -> Float[Array, "B *rest"]:
        """The same x, split only by rows, because every part of the model axis reads it whole."""
        return _constrained(x, self.rows(x.shape[0], x.ndim - 1))

    def cut_logits(self, logits: Float32[Array, "B V"]) -> Float32[Array, "B V"]:
        """The same logits, where each device has the part that its part of the head makes."""
        spec = (self.rows(logits.shape[0]).spec[0], MODEL)
        return _constrained(logits, self.sharding(*spec))


def _constrained(x: Float[Array, "*axes"], where: NamedSharding) -> Float[Array, "*axes"]:
    inside = jax.sharding.get_abstract_mesh()
    if DATA in inside.manual_axes:  # in a group, which has no rows of another
        spec = (None if axis == DATA else axis for axis in where.spec)
        where = NamedSharding(inside, PartitionSpec(*spec))  # type: ignore[no-untyped-call]
    result: Array = jax.lax.with_sharding_constraint(x, where)  # type: ignore[no-untyped-call]
    return result


def device_mesh(data: int, model: int, devices: list[Any] | None = None) -> DeviceMesh:
    """A mesh of the first `data` x `model` devices. Neighbouring devices share tensors.

    Raises:
        InvalidInputError: there are too few devices; names the settings.
    """
    found = jax.devices() if devices is None else devices
    if data * model > len(found):
        raise InvalidInputError(
            f"data_devices {data} x model_devices {model} needs {data * model} devices, but {len(found)} are "
            "available: lower one (XLA_FLAGS=--xla_force_host_platform_device_count=N simulates N on a CPU)",
            field="model_devices",
        )
    return DeviceMesh(Mesh(np.array(found[: data * model]).reshape(data, model), (DATA, MODEL)))


def abstract_mesh(data: int, model: int) -> DeviceMesh:
    """The same mesh without devices, for shapes and bytes."""
    return DeviceMesh(AbstractMesh((data, model), (DATA, MODEL)))


def check_division(config: T5Config, model: int) -> None:
    """Check that every axis that `model` devices split can be divided among them.

    Raises:
        InvalidInputError: names the axis, and the numbers of devices that divide it.
    """
    cut = {
        "num_heads": config.num_heads,
        "d_ff": config.d_ff,
        "padded_vocab_size": config.padded_vocab_size,
        "d_model": config.d_model,
    }
    for name, size in cut.items():
        if size % model:
            whole = [n for n in range(1, config.num_heads + 1) if all(each % n == 0 for each in cut.values())]
            raise InvalidInputError(
                f"{model} devices of the model axis do not divide {name} {size} of {config.name}: set "
                f"model_devices to one of {', '.join(map(str, whole))}, and data_devices for the rest",
                field="model_devices",
            )
