"""Which programs exist, and with which shapes. This one table is used to compile, to count, to plan memory
and to lower for other chips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chorus_server.engine.executor import decode as decoding
from chorus_server.engine.executor import prefill, reads
from chorus_server.engine.executor.choosing import TokenRules
from chorus_server.engine.executor.places import ONE_DEVICE, Places, placed, places_of
from chorus_server.engine.executor.state import (
    MAX_BEAMS,
    BlockState,
    ModelFunctions,
    initial_slots,
    initial_state,
)
from chorus_server.engine.plans import BlockMode, BlockShape, Ladder

Struct: Any = jax.ShapeDtypeStruct
MODES: tuple[BlockMode, ...] = ("plain", "grouped")
DEFAULT_OUTPUT_WIDTH = 32
"""The most decode steps that one dispatch can return."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What programs depend on; fixed before anything is compiled.

    Attributes:
        params: a pytree of arrays or shapes.
        width: D.
        dtype: the compute dtype, also of prompt rows and encodings.
        rows: R, rows of the prompt table.
        output_width: number of columns in a decode dispatch's outputs.
        places: where everything but `params` lives.
    """

    functions: ModelFunctions
    params: Any
    rules: TokenRules
    width: int
    dtype: Any
    rows: int
    output_width: int = DEFAULT_OUTPUT_WIDTH
    places: Places = ONE_DEVICE


Reads = Callable[[tuple[str, ...]], bool]
"""Whether a program reads the argument leaf at a path. The path begins with the argument's number."""


@dataclass(frozen=True, slots=True)
class Program:
    """A function, the shapes of its arguments and results, and where they live on a mesh.

    Attributes:
        donate: arguments that the program may overwrite.
        reads: tells which leaves of the arguments it reads; XLA drops the others.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    results: Any
    donate: tuple[int, ...] = ()
    reads: Reads = lambda path: True

    def jit(self) -> Any:
        """The jitted function, for lowering. It is never called with values."""
        return jax.jit(self.function, donate_argnums=self.donate, out_shardings=places_of(self.results))


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
    """Every program of a ladder. Their number is the number of compiles at a start."""
    shapes = sorted(set(ladder.blocks))
    yield from _row_programs(spec, ladder)
    for bucket in ladder.input_buckets:
        batch = _Batch.of(spec, bucket)
        yield _encode_program(spec, batch)
        for shape in shapes:
            if admits(bucket, shape):
                yield _admit_program(spec, batch, shape)
        for targets in ladder.score_buckets:
            yield _score_program(spec, batch, targets)
    for shape in shapes:
        state = _state(spec, shape)
        yield Program(empty_name(shape), partial(initial_state, spec.functions, shape), (), state)
        for mode in MODES:
            yield _decode_program(spec, shape, mode)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Shapes of an encoded batch, which every program after the encoder takes."""

    bucket: tuple[int, int]
    encoded: Any
    lengths: Any
    finite: Any

    @staticmethod
    def of(spec: ModelSpec, bucket: tuple[int, int]) -> _Batch:
        (B, L), places = bucket, spec.places
        encoded = Struct((B, L, spec.width), spec.dtype, sharding=places.batch(B, 2))
        lengths = Struct((B,), jnp.int32, sharding=places.whole)
        return _Batch(bucket, encoded, lengths, Struct((B,), jnp.bool_, sharding=places.whole))


def _table(spec: ModelSpec) -> Any:
    return Struct((spec.rows, spec.width), spec.dtype, sharding=spec.places.prompt_rows)


def _params(spec: ModelSpec) -> Any:
    return jax.tree.map(_struct, spec.params)


def _state(spec: ModelSpec, shape: BlockShape) -> BlockState:
    state: BlockState = placed(
        state_struct(spec.functions, shape), spec.places.state(shape, spec.functions.slot_axis)
    )
    return state


def _row_programs(spec: ModelSpec, ladder: Ladder) -> Iterator[Program]:
    table, n = _table(spec), ladder.rows_per_load
    values = Struct((n, spec.width), spec.dtype, sharding=spec.places.prompt_rows)
    rows = Struct((n,), jnp.int32, sharding=spec.places.whole)
    yield Program("empty_rows", partial(jnp.zeros, table.shape, table.dtype), (), table)
    yield Program("load_rows", prefill.load_rows, (table, rows, values), table, donate=(0,))


def _encode_program(spec: ModelSpec, batch: _Batch) -> Program:
    B, L = batch.bucket
    ids = Struct((B, L), jnp.int32, sharding=spec.places.batch(B, 1))
    arguments = (_params(spec), _table(spec), ids, batch.lengths)
    function, results = partial(prefill.encode, spec.functions), (batch.encoded, batch.finite)
    return Program(encode_name(batch.bucket), function, arguments, results, reads=reads.encoder)


def _admit_program(spec: ModelSpec, batch: _Batch, shape: BlockShape) -> Program:
    state = _state(spec, shape)
    admitted = placed(_admitted(batch.bucket[0], shape.slots), spec.places.whole)
    arguments = (_params(spec), state, batch.encoded, batch.lengths, batch.finite, admitted)
    name, function = admit_name(batch.bucket, shape), partial(prefill.admit, spec.functions)
    return Program(name, function, arguments, state, donate=(1,), reads=reads.admission)


def _score_program(spec: ModelSpec, batch: _Batch, targets: tuple[int, int]) -> Program:
    B, (C, T) = batch.bucket[0], targets
    whole = spec.places.whole
    wanted = placed((Struct((B, C, T), jnp.int32), Struct((B, C), jnp.int32)), whole)
    arguments = (_params(spec), batch.encoded, batch.lengths, batch.finite, *wanted)
    sums = Struct((B, C), jnp.float32, sharding=whole)
    name, function = score_name(batch.bucket, targets), partial(prefill.score, spec.functions)
    return Program(name, function, arguments, sums, reads=reads.targets)


def _decode_program(spec: ModelSpec, shape: BlockShape, mode: BlockMode) -> Program:
    function = partial(decoding.decode, spec.functions, spec.rules, mode, spec.output_width)
    state, S, n = _state(spec, shape), shape.slots, spec.output_width
    release, steps = placed((Struct((S,), jnp.bool_), Struct((), jnp.int32)), spec.places.whole)
    results = state, placed(decoding.output_struct(S, n, state.beams, mode), spec.places.whole)
    arguments = (_params(spec), state, release, steps)
    used = reads.targets if spec.functions.slot_axis else reads.decoder
    return Program(decode_name(shape, mode), function, arguments, results, donate=(1,), reads=used)


def _admitted(B: int, S: int) -> prefill.Admitted:
    whole: Any = Struct((S,), jnp.int32)
    slots: Any = jax.tree.map(lambda leaf: Struct(leaf.shape, leaf.dtype), initial_slots(S))
    targets: Any = Struct((B,), jnp.int32)
    fresh: Any = Struct((S,), jnp.bool_)
    members: Any = Struct((S, MAX_BEAMS), jnp.int32)
    return prefill.Admitted(targets=targets, fresh=fresh, sources=whole, slots=slots, members=members)
