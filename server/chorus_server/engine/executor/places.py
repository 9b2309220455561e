"""Where the executor's arrays live when several devices share a model: one rule for each kind of array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from chorus_server.engine.executor.state import BlockState
from chorus_server.engine.plans import BlockShape
from chorus_server.errors import InvalidInputError
from chorus_server.model.mesh import MODEL, DeviceMesh

Where = jax.sharding.Sharding | None


@dataclass(frozen=True, slots=True)
class Places:
    """Shardings by kind of array. Without a mesh all are None, which means the default device.

    Small arrays that the host reads or writes (tokens, settings, slots, beams) are copied to every device.
    """

    mesh: DeviceMesh | None = None

    @property
    def whole(self) -> Where:
        return None if self.mesh is None else self.mesh.whole

    @property
    def prompt_rows(self) -> Where:
        """Sharding of [R, D] and [n, D]."""
        return None if self.mesh is None else self.mesh.prompt_rows

    def batch(self, rows: int, after: int) -> Where:
        """Sharding of an array over the rows of a batch."""
        return None if self.mesh is None else self.mesh.rows(rows, after)

    def tokens(self, slot_axis: int) -> Where:
        """Sharding of keys and values by token, which the model axis splits by heads."""
        return None if self.mesh is None else self.mesh.sharding(*(None,) * (slot_axis + 1), MODEL)

    def state(self, shape: BlockShape, slot_axis: int) -> Any:
        """Shardings of all parts of a block's state.

        Raises:
            InvalidInputError: the slots cannot be divided by the data axis; names the setting.
        """
        if self.mesh is None:
            return None
        if shape.slots % self.mesh.data:
            raise InvalidInputError(
                f"the data axis of {self.mesh.data} devices does not divide the {shape.slots} slots of block "
                f"{shape.input_length}x{shape.new_tokens}x{shape.slots}: give blocks a multiple of "
                f"{self.mesh.data} slots, or lower data_devices",
                field="shapes.blocks",
            )
        cut = self.mesh.slots("scanned" if slot_axis else "unrolled")
        whole: Any = self.mesh.whole
        return BlockState(memory=cut, memory_lengths=whole, cache=cut, slots=whole, beams=whole)


ONE_DEVICE = Places()


def placed(tree: Any, where: Any) -> Any:
    """Shapes with their shardings. `where` is one sharding, or a tree whose leaves cover subtrees of
    `tree`."""

    def each(sharding: Any, part: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),  # type: ignore[no-untyped-call]
            part,
        )

    return tree if where is None else jax.tree.map(each, where, tree)


def places_of(tree: Any) -> Any:
    """The shardings of shapes; None for shapes that have none."""
    leaves = jax.tree.leaves(tree)
    if not leaves or leaves[0].sharding is None:
        return None
    return jax.tree.map(lambda leaf: leaf.sharding, tree)
