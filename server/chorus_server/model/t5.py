"""Models: structure, parameters and functions together. They are filled from canonical tensors and emptied
into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from chorus_server.errors import InvalidModelError
from chorus_server.model.config import T5Config
from chorus_server.model.functions import Functions
from chorus_server.model.fused_attention import AttentionKind
from chorus_server.model.layout import LAYOUTS, Layout, PyTree
from chorus_server.model.mesh import DeviceMesh, check_division
from chorus_server.model.network import T5
from chorus_server.model.parameters import Axes, is_matrix, parameter_axes, parameter_shapes

AnyArray = jax.Array | np.ndarray[Any, Any]
"""From a tensor's logical axis names to where it lives. A stacked tensor's axes begin with "layers"."""


@dataclass(frozen=True)
class Model:
    """A T5 with its parameters.

    Attributes:
        params: nested dict of arrays by canonical path, used as the jit argument (abstract after `build`).
            Scanned layouts have no layer index in the path, and a leading axis N instead.
        functions: the pure functions, hashable.
    """

    functions: Functions
    params: PyTree

    @property
    def config(self) -> T5Config:
        return self.functions.config

    @property
    def layout(self) -> Layout:
        return self.functions.layout

    @property
    def dtype(self) -> Any:
        return self.functions.dtype

    @property
    def matrix_dtype(self) -> Any:
        return self.functions.matrix_dtype

    @property
    def mesh(self) -> DeviceMesh | None:
        return self.functions.mesh

    def with_attention(self, kind: AttentionKind) -> Model:
        """The same parameters, compiled with another attention."""
        return replace(self, functions=replace(self.functions, attention=kind))


def build(
    config: T5Config,
    layout: Layout = "unrolled",
    dtype: Any = jnp.float32,
    mesh: DeviceMesh | None = None,
    matrix_dtype: Any = None,
) -> Model:
    """Only the structure: `params` are `jax.ShapeDtypeStruct`s, with shardings if there is a mesh.

    Args:
        dtype: compute dtype.
        matrix_dtype: dtype of the matrices (`parameters.is_matrix`); None means `dtype`.

    Raises:
        InvalidModelError: the layout is unknown, or the dtype is not float32 or bfloat16 (T5 overflows in
            float16).
        InvalidInputError: the mesh does not divide the model; names the axis.
    """
    if layout not in LAYOUTS:
        raise InvalidModelError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}", field="layout")
    compute = _checked(dtype, "dtype")
    matrix = compute if matrix_dtype is None else _checked(matrix_dtype, "matrix_dtype")
    if mesh is not None:
        check_division(config, mesh.model)
    graph, state = nnx.split(nnx.eval_shape(lambda: T5(config, layout, compute, mesh)))
    params = nnx.to_pure_dict(state)
    _finish_structs(config, layout, params, matrix, mesh)
    return Model(Functions(config, layout, compute, graph, matrix, mesh), params)


def assemble(
    config: T5Config,
    layout: Layout,
    dtype: Any,
    tensors: Iterable[tuple[str, AnyArray]],
    sharding: Callable[[Axes], jax.sharding.Sharding] | None = None,
    mesh: DeviceMesh | None = None,
    matrix_dtype: Any = None,
) -> Model:
    """Fill a model tensor by tensor: each is cast and put on its device before the next is asked for.

    Args:
        tensors: canonical name and array, in any order; see `parameters`.
        sharding: where each tensor lives; None means the mesh's own rules, or the default device.
        mesh: the devices that share the model; None means one device.
        matrix_dtype: as in `build`.

    Raises:
        InvalidModelError: a tensor is unknown, misshapen, given twice or missing; the message names it.
        InvalidInputError: the mesh does not divide the model; names the axis.
    """
    model = build(config, layout, dtype, mesh, matrix_dtype)
    sharding = mesh.weight if sharding is None and mesh is not None else sharding
    shapes, axes = parameter_shapes(config), parameter_axes(config)
    missing = dict.fromkeys(shapes)
    places = {True: _Place(model.matrix_dtype, sharding), False: _Place(model.dtype, sharding)}
    params: dict[Any, Any] = {}
    for name, array in tensors:
        if name not in shapes:
            raise InvalidModelError(f"tensor {name!r} is not part of this model", field=name)
        if name not in missing:
            raise InvalidModelError(f"tensor {name!r} was given twice", field=name)
        if tuple(array.shape) != shapes[name]:
            message = f"tensor {name!r} has shape {tuple(array.shape)}, expected {shapes[name]}"
            raise InvalidModelError(message, field=name)
        del missing[name]
        path, index = _path(name, layout)
        place = places[is_matrix(name)]
        if index is None:
            _set(params, path, place.whole(array, axes[name]))
        else:
            layers = config.num_encoder_layers if path[0] == "encoder" else config.num_decoder_layers
            _set(params, path, place.layer(_get(params, path), layers, index, array, axes[name]))
    if missing:
        names = ", ".join(list(missing)[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InvalidModelError(f"tensors are missing: {names}", field=next(iter(missing)))
    return Model(model.functions, params)


def tensors_of(model: Model) -> Iterator[tuple[str, jax.Array]]:
    """Canonical name and array of every tensor, one at a time: the inverse of `assemble`."""
    for name in parameter_shapes(model.config):
        path, index = _path(name, model.layout)
        array = _get(model.params, path)
        yield name, array if index is None else array[index]


def arranged(config: T5Config, layout: Layout, tensors: Mapping[str, AnyArray]) -> PyTree:
    """Canonical tensors as the nested params of a layout. It can be traced: training keeps canonical tensors,
    whose optimiser state does not depend on the layout, and arranges them inside its program."""
    params: dict[Any, Any] = {}
    stacks: dict[tuple[str | int, ...], list[AnyArray]] = {}
    for name in parameter_shapes(config):  # layers come in ascending order
        path, index = _path(name, layout)
        if index is None:
            _set(params, path, tensors[name])
        else:
            stacks.setdefault(path, []).append(tensors[name])
    for path, layers in stacks.items():
        _set(params, path, jnp.stack(layers))
    return params


def random_tensors(
    config: T5Config, seed: int
) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """Canonical tensors with T5's initial spread, f32. It is that of Mesh TensorFlow, like the reference
    implementation's."""
    generator = np.random.default_rng(seed)
    for name, shape in parameter_shapes(config).items():
        if name.endswith("norm"):
            yield name, np.ones(shape, np.float32)
        else:
            deviation = _deviation(config, name)
            yield name, generator.standard_normal(shape, np.float32) * np.float32(deviation)


def _deviation(config: T5Config, name: str) -> float:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "embedding":
        return 1.0
    if leaf == "query":
        return float((config.d_model * config.d_kv) ** -0.5)
    if leaf == "output":
        return float(config.inner_width**-0.5)
    if leaf == "wo":
        return float(config.d_ff**-0.5)
    return float(config.d_model**-0.5)


def _checked(dtype: Any, field: str) -> jnp.dtype:
    found: jnp.dtype = jnp.dtype(dtype)
    if found not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise InvalidModelError(f"{field} must be float32 or bfloat16, got {found.name}", field=field)
    return found


def _finish_structs(
    config: T5Config, layout: Layout, params: PyTree, matrix_dtype: jnp.dtype, mesh: DeviceMesh | None
) -> None:
    """Give matrices their dtype, and everything its place on a mesh."""
    for name, axes in parameter_axes(config).items():
        path, index = _path(name, layout)
        shape = _get(params, path)
        where = mesh.weight(axes if index is None else ("layers", *axes)) if mesh else None
        dtype = matrix_dtype if is_matrix(name) else shape.dtype
        struct = jax.ShapeDtypeStruct(shape.shape, dtype, sharding=where)  # type: ignore[no-untyped-call]
        _set(params, path, struct)


class _Place:
    """Puts arrays where they live, in the model's dtype."""

    def __init__(self, dtype: Any, sharding: Callable[[Axes], jax.sharding.Sharding] | None) -> None:
        self._dtype = dtype
        self._sharding = sharding

    def whole(self, array: AnyArray, axes: Axes) -> jax.Array:
        if array.dtype != self._dtype:
            array = array.astype(self._dtype)
        placed: jax.Array = jax.device_put(array, self._sharding(axes) if self._sharding else None)
        return placed

    def layer(self, stack: Any, layers: int, index: int, array: AnyArray, axes: Axes) -> jax.Array:
        """Write one layer into the stacked buffer, in place on the device."""
        if stack is None:
            where = self._sharding(("layers", *axes)) if self._sharding else None
            make = partial(jnp.zeros, (layers, *array.shape), self._dtype)
            stack = jax.jit(make, out_shardings=where)() if where else make()
        written: jax.Array = _write(stack, index, self.whole(array, axes))
        return written


@partial(jax.jit, donate_argnums=0)
def _write(stack: jax.Array, index: int, value: jax.Array) -> jax.Array:
    written: jax.Array = jax.lax.dynamic_update_index_in_dim(stack, value, index, 0)
    return written


def _path(name: str, layout: Layout) -> tuple[tuple[str | int, ...], int | None]:
    """From a canonical name to the path in params, and to the layer if layers are stacked."""
    parts: list[str | int] = [int(part) if part.isdigit() else part for part in name.split(".")]
    if len(parts) > 2 and parts[1] == "layers" and layout == "scanned":
        index = parts.pop(2)
        assert isinstance(index, int)
        return tuple(parts), index
    return tuple(parts), None


def _get(tree: PyTree, path: tuple[str | int, ...]) -> Any:
    for part in path:
        tree = tree.get(part) if tree is not None else None
    return tree


def _set(tree: dict[Any, Any], path: tuple[str | int, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value
