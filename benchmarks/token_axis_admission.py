"""From rows to the encoder memory of slots: as today, and with the memory's products on the token axis too.

    python -m benchmarks.token_axis_admission MODEL --machine 2core-cpu [--types f32 bf16] [--rounds 9]

Today `encode[B, L]` leaves [B, L, D], and `admit` multiplies it, padding and all, into keys and values of
slots. Here the encoder's program multiplies tokens [T, D] and writes keys and values to the first T places of
one buffer, which it is given and returns. Admission then only copies, a row at a time, so one program a block
shape serves every bucket. Run `token_axis` before: `admission` is added to its result of the same day.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.token_axis import RESULTS, Bucket, Rows, encode_tokens, pack_padded, pack_tokens
from chorus_server.engine.executor.prefill import _write_memory
from chorus_server.model.checkpoints import load_model
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.layers import project
from chorus_server.model.t5 import Model

SLOTS, BLOCK, MOST = 16, 256, 2048
"""Slots and input tokens of the block; tokens of the largest bucket."""


def empty_buffer(model: Model) -> Any:
    """Keys and values by token, [MOST + BLOCK, H * K] a layer: a copy may read beyond the last token."""
    config = model.config
    width = config.num_heads * config.d_kv
    return tuple(
        {name: jnp.zeros((MOST + BLOCK, width), model.dtype) for name in ("key", "value")}
        for _ in range(config.num_decoder_layers)
    )


def encode_memory(
    model: Model, length: int, params: Any, table: Any, buffer: Any, ids: Any, starts: Any, lengths: Any
) -> tuple[Any, Any]:
    """The buffer (donated) with the tokens' keys and values from place 0; whether each row is finite, [R]."""
    encoded = encode_tokens(model, length, params, table, ids, starts, lengths)
    module: Any = nnx.merge(model.functions.graph, params)
    bad = jnp.cumsum(~jnp.isfinite(encoded).all(axis=1))
    before = jnp.where(starts > 0, bad[starts - 1], 0)
    finite = bad.at[starts + lengths - 1].get(mode="clip") == before

    def write(old: Any, layer: Any, name: str) -> Any:
        new = project(encoded, getattr(layer.cross_attention, name)).astype(old.dtype)
        return jax.lax.dynamic_update_slice(old, new, (0, 0))

    pairs = zip(buffer, module.decoder.layers, strict=True)
    return tuple({name: write(old[name], layer, name) for name in old} for old, layer in pairs), finite


def admit_rows(
    model: Model, memory: Any, buffer: Any, starts: Any, lengths: Any, finite: Any, targets: Any, count: Any
) -> Any:
    """The slots' memory (donated) with the first `count` rows at slots `targets`, 0 beyond their lengths."""
    heads = model.config.num_heads

    def put(row: Any, memory: Any) -> Any:
        keep = (jnp.arange(BLOCK) < lengths[row]) & finite[row]

        def copy(old: Any, tokens: Any) -> Any:
            own = jax.lax.dynamic_slice(tokens, (starts[row], 0), (BLOCK, tokens.shape[1]))
            own = jnp.where(keep[:, None], own, 0).reshape(BLOCK, heads, -1).transpose(1, 0, 2)
            return jax.lax.dynamic_update_slice(old, own[None], (targets[row], 0, 0, 0))

        return jax.tree.map(copy, memory, buffer)

    return jax.lax.fori_loop(0, count, put, memory)


class Padded:
    """Encode and admit as today, in buckets (B, L)."""

    def __init__(self, model: Model, batches: Sequence[tuple[Rows, tuple[int, int]]]) -> None:
        self.model, self.batches = model, batches
        self.table = jnp.zeros((1, model.config.d_model), model.dtype)
        self.memory = model.functions.init_memory(SLOTS, BLOCK)
        self.encoders: dict[Any, Any] = {}
        self.admissions: dict[Any, Any] = {}
        for rows, bucket in batches:
            if bucket in self.encoders:
                continue
            ids, lengths = pack_padded(rows, *bucket)
            encode = jax.jit(model.functions.encode).lower(model.params, self.table, ids, lengths).compile()
            encoded = jax.ShapeDtypeStruct((*bucket, model.config.d_model), model.dtype)
            targets = np.zeros(bucket[0], np.int32)
            admit = jax.jit(self._admit, donate_argnums=(1,))
            lowered = admit.lower(model.params, self.memory, encoded, lengths, targets)
            self.encoders[bucket], self.admissions[bucket] = encode, lowered.compile()

    def _admit(self, params: Any, memory: Any, encoded: Any, lengths: Any, targets: Any) -> Any:
        finite = jnp.all(jnp.isfinite(encoded), axis=(1, 2))
        clean = jnp.where(finite[:, None, None], encoded, 0)
        new = self.model.functions.encoder_memory(params, clean, lengths)
        write = partial(_write_memory, self.model.functions, targets=targets)
        return jax.tree.map(lambda old, each: write(old, each), memory, new)

    def run(self) -> Any:
        place = 0
        for rows, bucket in self.batches:
            ids, lengths = pack_padded(rows, *bucket)
            targets = np.full(bucket[0], SLOTS, np.int32)
            targets[: len(rows)] = range(place, place + len(rows))
            place += len(rows)
            encoded = self.encoders[bucket](self.model.params, self.table, ids, lengths)
            self.memory = self.admissions[bucket](self.model.params, self.memory, encoded, lengths, targets)
        return jax.block_until_ready(self.memory)


class Packed:
    """Encode and admit on the token axis, in buckets (T, R, L)."""

    def __init__(self, model: Model, batches: Sequence[tuple[Rows, Bucket, range]]) -> None:
        self.model, self.batches = model, batches
        self.table = jnp.zeros((1, model.config.d_model), model.dtype)
        self.memory, self.buffer = model.functions.init_memory(SLOTS, BLOCK), empty_buffer(model)
        self.encoders: dict[Any, Any] = {}
        self.admissions: dict[Any, Any] = {}
        for rows, bucket, _ in batches:
            if bucket in self.encoders:
                continue
            packed = pack_tokens(rows, bucket)
            encode = jax.jit(partial(encode_memory, model, bucket[2]), donate_argnums=(2,))
            lowered = encode.lower(model.params, self.table, self.buffer, *packed)
            self.encoders[bucket] = lowered.compile()
            R = bucket[1]
            numbers = np.zeros(R, np.int32)
            admit = jax.jit(partial(admit_rows, model), donate_argnums=(0,))
            arguments = self.memory, self.buffer, *packed[1:], np.ones(R, np.bool_), numbers, np.int32(1)
            self.admissions[bucket] = admit.lower(*arguments).compile()

    def run(self) -> Any:
        for rows, bucket, slots in self.batches:
            packed = pack_tokens(rows, bucket)
            targets = np.zeros(bucket[1], np.int32)
            targets[: len(rows)] = slots
            encode, admit = self.encoders[bucket], self.admissions[bucket]
            self.buffer, finite = encode(self.model.params, self.table, self.buffer, *packed)
            count = np.int32(len(rows))
            self.memory = admit(self.memory, self.buffer, *packed[1:], finite, targets, count)
        return jax.block_until_ready(self.memory)


def loads(model: Model) -> dict[str, tuple[Padded, Packed]]:
    """Today's way and the token axis, by load."""
    random = np.random.default_rng(0)
    mixed = [random.integers(3, 30000, size=n).tolist() for n in np.linspace(20, 190, 16).round().astype(int)]
    whole, labels, members, one = (
        [random.integers(3, 30000, size=n).tolist() for _ in range(count)]
        for n, count in ((192, 8), (80, 8), (100, 5), (64, 1))
    )
    halves = [(mixed[first::2], (896, 8, 192), range(first, 16, 2)) for first in (0, 1)]
    return {
        "16 rows of 20 to 190 tokens": (
            Padded(model, [(mixed[:8], (8, 128)), (mixed[8:], (8, 192))]),
            Packed(model, halves),
        ),
        "8 rows of 192 tokens": (
            Padded(model, [(whole, (8, 192))]),
            Packed(model, [(whole, (1536, 8, 192), range(8))]),
        ),
        "8 rows of 80 tokens": (
            Padded(model, [(labels, (8, 128))]),
            Packed(model, [(labels, (640, 8, 128), range(8))]),
        ),
        "5 rows of 100 tokens (members)": (
            Padded(model, [([row], (1, 128)) for row in members]),
            Packed(model, [(members, (512, 8, 128), range(5))]),
        ),
        "1 row of 64 tokens": (
            Padded(model, [(one, (1, 64))]),
            Packed(model, [(one, (64, 1, 64), range(1))]),
        ),
    }


def _flat(tree: Any) -> Any:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    loaded = load_model(options.model, matrix_dtype=jnp.bfloat16 if name == "bf16" else None)
    kind, _ = choose_attention("auto", loaded.model.dtype)
    found = {}
    for load, pair in loads(loaded.model.with_attention(kind)).items():
        memories = [
            np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(each.run())])
            for each in pair
        ]
        seconds: list[list[float]] = [[], []]
        for _ in range(options.rounds):
            for times, each in zip(seconds, pair, strict=True):
                times.append(timed(each.run))
        found[load] = {
            "milliseconds_median": [round(1e3 * statistics.median(times), 2) for times in seconds],
            "milliseconds_best": [round(1e3 * min(times), 2) for times in seconds],
            "largest_difference": float(np.abs(memories[0] - memories[1]).max()),
            "largest_value": float(np.abs(memories[0]).max()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--types", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-{options.machine}-token_axis.json"
    result = json.loads(path.read_text())
    for name in options.types:
        result.setdefault("admission", {})[name] = measured(options, name)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["admission"], indent=1))


if __name__ == "__main__":
    main()
