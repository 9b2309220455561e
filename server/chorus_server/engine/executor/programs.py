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
from chorus_server.engine.target_trees import EDGES_PER_NODE
from chorus_server.model.trees import Trees

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


def encode_name(bucket: tuple[int, int], tokens: int) -> str:
    return f"encode[{tokens},{bucket[0]},{bucket[1]}]"


def admit_name(shape: BlockShape) -> str:
    return f"admit[{block_name(shape)}]"


def decode_name(shape: BlockShape, mode: BlockMode) -> str:
    return f"decode[{block_name(shape)},{mode}]"


def score_name(rows: int, nodes: int, length: int) -> str:
    return f"score[{rows},{nodes},{length}]"


def block_name(shape: BlockShape) -> str:
    return f"{shape.input_length}x{shape.new_tokens}x{shape.slots}"


def _struct(leaf: Any) -> Any:
    return Struct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def state_struct(functions: ModelFunctions, shape: BlockShape) -> BlockState:
    """Shapes of a block's state."""
    state: BlockState = jax.eval_shape(partial(initial_state, functions, shape))
    return state


def programs(spec: ModelSpec, ladder: Ladder) -> Iterator[Program]:
    """Every program of a ladder. Their number is the number of compiles at a start."""
    shapes = sorted(set(ladder.blocks))
    batch = _Batch.of(spec, ladder)
    yield from _load_programs(spec, ladder, batch)
    for bucket in ladder.input_buckets:
        for tokens in ladder.token_counts(bucket):
            yield _encode_program(spec, batch, bucket, tokens)
    for rows, nodes in sorted(set(ladder.score_buckets)):
        for length in ladder.score_lengths((rows, nodes)):
            several = ladder.trees_of_one((rows, nodes))
            yield _score_program(spec, batch, rows, nodes, length, several)
    for shape in shapes:
        yield _admit_program(spec, batch, shape)
        for mode in MODES:
            yield _decode_program(spec, shape, mode)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Shapes of an encoded batch, which every program after the encoder takes: the same for every bucket."""

    tokens: Any
    rows: prefill.EncodedRows

    @staticmethod
    def of(spec: ModelSpec, ladder: Ladder) -> _Batch:
        places, most = spec.places, ladder.max_rows
        tokens = jax.eval_shape(partial(spec.functions.init_tokens, ladder.max_tokens))
        number: Any = Struct((most,), jnp.int32, sharding=places.whole)
        finite: Any = Struct((most,), jnp.bool_, sharding=places.whole)
        return _Batch(
            placed(tokens, places.tokens(spec.functions.slot_axis)),
            prefill.EncodedRows(number, number, finite),
        )


def _table(spec: ModelSpec) -> Any:
    return Struct((spec.rows, spec.width), spec.dtype, sharding=spec.places.prompt_rows)


def _params(spec: ModelSpec) -> Any:
    return jax.tree.map(_struct, spec.params)


def _state(spec: ModelSpec, shape: BlockShape) -> BlockState:
    state: BlockState = placed(
        state_struct(spec.functions, shape), spec.places.state(shape, spec.functions.slot_axis)
    )
    return state


def _load_programs(spec: ModelSpec, ladder: Ladder, batch: _Batch) -> Iterator[Program]:
    table, n = _table(spec), ladder.rows_per_load
    values = Struct((n, spec.width), spec.dtype, sharding=spec.places.prompt_rows)
    rows = Struct((n,), jnp.int32, sharding=spec.places.whole)
    states = tuple(_state(spec, shape) for shape in ladder.blocks)
    empty = partial(_empty, spec.functions, ladder.blocks, ladder.max_tokens, table.shape, table.dtype)
    yield Program("empty", empty, (), (table, batch.tokens, states))
    yield Program("load_rows", prefill.load_rows, (table, rows, values), table, donate=(0,))


def _empty(
    functions: ModelFunctions,
    shapes: tuple[BlockShape, ...],
    tokens: int,
    table: tuple[int, int],
    dtype: Any,
) -> tuple[Any, Any, Any]:
    blocks = tuple(initial_state(functions, shape) for shape in shapes)
    return jnp.zeros(table, dtype), functions.init_tokens(tokens), blocks


def _encode_program(spec: ModelSpec, batch: _Batch, bucket: tuple[int, int], tokens: int) -> Program:
    ids = Struct((tokens,), jnp.int32, sharding=spec.places.whole)
    arguments = (_params(spec), _table(spec), batch.tokens, ids, batch.rows.starts, batch.rows.lengths)
    function, results = partial(prefill.encode, spec.functions, bucket), (batch.tokens, batch.rows.finite)
    return Program(
        encode_name(bucket, tokens), function, arguments, results, donate=(2,), reads=reads.encoder
    )


def _admit_program(spec: ModelSpec, batch: _Batch, shape: BlockShape) -> Program:
    state = _state(spec, shape)
    admitted = placed(_admitted(batch.rows.starts.shape[0], shape.slots), spec.places.whole)
    apart = spec.places.mesh is not None and spec.places.mesh.data > 1
    function = partial(prefill.admit, spec.functions, apart)
    arguments = (state, batch.tokens, batch.rows, admitted)
    return Program(admit_name(shape), function, arguments, state, donate=(0,), reads=reads.admission(apart))


def _score_program(
    spec: ModelSpec,
    batch: _Batch,
    rows: int,
    nodes: int,
    length: int,
    several: tuple[tuple[int, int], ...],
) -> Program:
    name, whole = score_name(rows, nodes, length), spec.places.whole
    chosen, number = (Struct(shape, jnp.int32, sharding=whole) for shape in ((rows,), ()))
    read = (_params(spec), batch.tokens, batch.rows, chosen)
    if several:
        trees, results = zip(*(_trees(whole, *each) for each in several), strict=True)
        of_one = partial(prefill.score_one, spec.functions, length)
        return Program(name, of_one, (*read, number, trees), results, reads=reads.decoder)
    tree, found = _trees(whole, rows, nodes)
    function = partial(prefill.score, spec.functions, length)
    return Program(name, function, (*read, tree), found, reads=reads.decoder)


def _trees(whole: Any, count: int, nodes: int) -> tuple[Any, Any]:
    """So many trees of a size, and what is found for them."""
    edges = (count, EDGES_PER_NODE * nodes)
    of_nodes, of_edges = Struct((count, nodes), jnp.int32), Struct(edges, jnp.int32)
    trees = placed(Trees(of_nodes, of_nodes, of_nodes, of_edges, of_edges), whole)
    return trees, Struct(edges, jnp.float32, sharding=whole)


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
    numbers: Any = Struct((B,), jnp.int32)
    count: Any = Struct((), jnp.int32)
    fresh: Any = Struct((S,), jnp.bool_)
    members: Any = Struct((S, MAX_BEAMS), jnp.int32)
    return prefill.Admitted(
        count=count, rows=numbers, targets=numbers, fresh=fresh, sources=whole, slots=slots, members=members
    )
