"""Which programs exist and with which shapes: one table, used to compile, count, plan memory and lower for
other chips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from server.engine.executor import decode as decoding
from server.engine.executor import prefill
from server.engine.executor.sampling import TokenRules
from server.engine.executor.state import MAX_BEAMS, BlockState, ModelFunctions, initial_slots, initial_state
from server.engine.plans import BlockMode, BlockShape, Ladder

Struct: Any = jax.ShapeDtypeStruct
MODES: tuple[BlockMode, ...] = ("plain", "grouped")
DEFAULT_OUTPUT_WIDTH = 32
"""Decode steps that one dispatch can return."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What programs depend on: fixed before anything is compiled.

    Attributes:
        params: pytree of arrays or shapes.
        width: D.
        dtype: compute dtype, of prompt rows and encodings too.
        rows: R of the prompt table.
        output_width: columns of a decode dispatch's outputs.
        replicated: where everything but `params` lives when those are sharded over a mesh: one copy a device;
        None
            is the default device.
    """

    functions: ModelFunctions
    params: Any
    rules: TokenRules
    width: int
    dtype: Any
    rows: int
    output_width: int = DEFAULT_OUTPUT_WIDTH
    replicated: jax.sharding.Sharding | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A function, the shapes of its arguments and which of them it may overwrite."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donate: tuple[int, ...] = ()
    place: jax.sharding.Sharding | None = None

    def jit(self) -> Any:
        """The jitted function, for lowering; never called with values."""
        return jax.jit(self.function, donate_argnums=self.donate, out_shardings=self.place)


def encode_name(bucket: tuple[int, int]) -> str:
    return f"encode[{bucket[0]},{bucket[1]}]"


def admit_name(bucket: tuple[int, int], shape: BlockShape) -> str:
    return f"admit[{bucket[0]},{bucket[1]}->{block_name(shape)}]"


def decode_name(shape: BlockShape, mode: BlockMode) -> str:
    return f"decode[{block_name(shape)},{mode}]"


def score_name(bucket: tuple[int, int], targets: tuple[int, int]) -> str:
    return f"score[{bucket[0]},{bucket[1]},{targets[0]},{targets[1]}]"


def empty_name(shape: BlockShape) -> str:
    return f"empty[{block_name(shape)}]"


def block_name(shape: BlockShape) -> str:
    return f"{shape.input_length}x{shape.new_tokens}x{shape.slots}"


def admits(bucket: tuple[int, int], shape: BlockShape) -> bool:
    """Whether rows of this input bucket can be admitted to blocks of this shape."""
    return bucket[1] <= shape.input_length


def _struct(leaf: Any) -> Any:
    return Struct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def state_struct(functions: ModelFunctions, shape: BlockShape) -> BlockState:
    """Shapes of a block's state."""
    state: BlockState = jax.eval_shape(partial(initial_state, functions, shape))
    return state


def programs(spec: ModelSpec, ladder: Ladder) -> Iterator[Program]:
    """Every program of a ladder; its length is the number of compiles of a start."""
    for program in _programs(spec, ladder):
        yield program if spec.replicated is None else _replicate(program, spec)


def _replicate(program: Program, spec: ModelSpec) -> Program:
    """The same program with every argument but `params` (first where it has them), and every result, on each
    device."""

    def place(leaf: Any) -> Any:
        return Struct(leaf.shape, leaf.dtype, sharding=spec.replicated)

    keep = int(bool(program.arguments) and isinstance(program.arguments[0], type(spec.params)))
    placed = jax.tree.map(place, program.arguments[keep:])
    return replace(program, arguments=(*program.arguments[:keep], *placed), place=spec.replicated)


def _programs(spec: ModelSpec, ladder: Ladder) -> Iterator[Program]:
    params = jax.tree.map(_struct, spec.params)
    shapes = sorted(set(ladder.blocks))
    rows, n = Struct((spec.rows, spec.width), spec.dtype), ladder.rows_per_load
    loads = (rows, Struct((n,), jnp.int32), Struct((n, spec.width), spec.dtype))
    yield Program("empty_rows", partial(jnp.zeros, rows.shape, rows.dtype), ())
    yield Program("load_rows", prefill.load_rows, loads, donate=(0,))
    for bucket in ladder.input_buckets:
        B, L = bucket
        lengths, finite = Struct((B,), jnp.int32), Struct((B,), jnp.bool_)
        encoded = Struct((B, L, spec.width), spec.dtype)
        yield Program(
            encode_name(bucket),
            partial(prefill.encode, spec.functions),
            (params, rows, Struct((B, L), jnp.int32), lengths),
        )
        for shape in shapes:
            if admits(bucket, shape):
                state = state_struct(spec.functions, shape)
                yield Program(
                    admit_name(bucket, shape),
                    partial(prefill.admit, spec.functions),
                    (params, state, encoded, lengths, finite, _admitted(B, shape.slots)),
                    donate=(1,),
                )
        for C, T in ladder.score_buckets:
            yield Program(
                score_name(bucket, (C, T)),
                partial(prefill.score, spec.functions),
                (params, encoded, lengths, finite, Struct((B, C, T), jnp.int32), Struct((B, C), jnp.int32)),
            )
    for shape in shapes:
        yield Program(empty_name(shape), partial(initial_state, spec.functions, shape), ())
        for mode in MODES:
            yield _decode_program(spec, params, shape, mode)


def _decode_program(spec: ModelSpec, params: Any, shape: BlockShape, mode: BlockMode) -> Program:
    function = partial(decoding.decode, spec.functions, spec.rules, mode, spec.output_width)
    release, steps = Struct((shape.slots,), jnp.bool_), Struct((), jnp.int32)
    state = state_struct(spec.functions, shape)
    return Program(decode_name(shape, mode), function, (params, state, release, steps), donate=(1,))


def _admitted(B: int, S: int) -> prefill.Admitted:
    whole: Any = Struct((S,), jnp.int32)
    slots: Any = jax.tree.map(lambda leaf: Struct(leaf.shape, leaf.dtype), initial_slots(S))
    targets: Any = Struct((B,), jnp.int32)
    fresh: Any = Struct((S,), jnp.bool_)
    members: Any = Struct((S, MAX_BEAMS), jnp.int32)
    return prefill.Admitted(targets=targets, fresh=fresh, sources=whole, slots=slots, members=members)
