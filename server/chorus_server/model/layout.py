"""Two layouts of a stack of layers, with one `fold` for both.

`unrolled` keeps one buffer for each tensor and unrolls the loop over layers. XLA then never slices or copies
weights, so serving is fast. `scanned` stacks each tensor of all layers on a leading axis and loops on the
device. Compile time and gradient memory are then those of one layer, because each layer is computed again;
training and XXL need this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

Layout = Literal["unrolled", "scanned"]
LAYOUTS: tuple[Layout, ...] = ("unrolled", "scanned")

PyTree = Any
Body = Callable[[Any, PyTree, PyTree], tuple[PyTree, PyTree]]
"""(layer, carry, the layer's inputs) -> (carry, the layer's outputs)."""


def make_layers(layout: Layout, count: int, make: Callable[[], nnx.Module]) -> nnx.Module:
    """`count` layers: a list of modules, or one module whose parameters have a leading axis N."""
    if layout == "unrolled":
        return nnx.List([make() for _ in range(count)])
    graph, state = nnx.split(make())
    stacked = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), state)
    return nnx.merge(graph, stacked)


def fold(layers: nnx.Module, body: Body, carry: PyTree, inputs: PyTree = None) -> tuple[PyTree, PyTree]:
    """Run `body` over the layers in order.

    Args:
        inputs: inputs for each layer: a tuple of N trees (unrolled), or one tree of arrays with leading axis
            N (scanned).

    Returns:
        The last carry, and the outputs of each layer in the same form as `inputs`.
    """
    if isinstance(layers, nnx.List):

        @partial(jax.jit, static_argnums=0, inline=True)  # traced once for all layers of one shape
        def called(graph: Any, parameters: PyTree, carry: PyTree, given: PyTree) -> tuple[PyTree, PyTree]:
            return body(nnx.merge(graph, parameters), carry, given)

        outputs = []
        for index, layer in enumerate(layers):
            graph, parameters = nnx.split(layer)
            carry, output = called(graph, parameters, carry, None if inputs is None else inputs[index])
            outputs.append(output)
        return carry, tuple(outputs)
    graph, state = nnx.split(layers)

    def step(carry: PyTree, sliced: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        parameters, layer_inputs = sliced
        return body(nnx.merge(graph, parameters), carry, layer_inputs)

    return jax.lax.scan(jax.checkpoint(step), carry, (state, inputs))
