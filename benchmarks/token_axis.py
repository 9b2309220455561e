"""Encoding with rows end to end on one axis of tokens, beside rows padded to one length. Then the bits.

    python -m benchmarks.token_axis MODEL --machine 2core-cpu [--types f32 bf16] [--rounds 12]

The products of the token axis run over [T, D]. Attention gathers rows into blocks [R, L], and what it returns
is gathered back. The contenders encode the same rows in turn, round after round, so that whatever else the
machine does falls on all alike. Writes benchmarks/results/DATE-MACHINE-token_axis.json; a type that was
measured before stays in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine
from chorus_server.model.checkpoints import load_model
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.t5 import Model

RESULTS = Path(__file__).parent / "results"
Rows = Sequence[Sequence[int]]
Bucket = tuple[int, int, int]
"""T tokens, R rows, L tokens of the longest row."""


def encode_tokens(
    model: Model, length: int, params: Any, table: Any, ids: Any, starts: Any, lengths: Any
) -> Any:
    """Encoded tokens [T, D], 0 where there is no row. Compiled once for each bucket (T, R, `length`).

    Args:
        ids: [T], as in `Functions.encode`.
        starts: [R], ascending, where each row begins; T for a row that is not used.
        lengths: [R], at most `length`; 0 for a row that is not used.
    """
    return model.functions.encode_tokens(params, table, ids, starts, lengths, length)


def pack_tokens(rows: Rows, bucket: Bucket, offset: int = 0) -> tuple[Any, Any, Any]:
    """ids [T], starts [R] and lengths [R] of rows that lie end to end from `offset`."""
    T, R, L = bucket
    if len(rows) > R or offset + sum(map(len, rows)) > T or any(not 0 < len(row) <= L for row in rows):
        raise ValueError(f"rows of {[len(row) for row in rows]} tokens from {offset} do not fit {bucket}")
    ids, starts, lengths = np.zeros(T, np.int32), np.full(R, T, np.int32), np.zeros(R, np.int32)
    for index, row in enumerate(rows):
        ids[offset : offset + len(row)] = row
        starts[index], lengths[index] = offset, len(row)
        offset += len(row)
    return ids, starts, lengths


def pack_padded(rows: Rows, batch: int, length: int) -> tuple[Any, Any]:
    """ids [B, L] and lengths [B]."""
    ids, lengths = np.zeros((batch, length), np.int32), np.ones(batch, np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)], lengths[index] = row, len(row)
    return ids, lengths


class TokenAxis:
    """The compiled programs of one model."""

    def __init__(self, model: Model, table: Any = None) -> None:
        self.model = model
        self.table = jnp.zeros((1, model.config.d_model), model.dtype) if table is None else table
        self._programs: dict[tuple[int, ...], Any] = {}

    def arguments(self, rows: Rows, bucket: tuple[int, ...], offset: int = 0) -> tuple[Any, ...]:
        packed = pack_tokens(rows, bucket, offset) if len(bucket) == 3 else pack_padded(rows, *bucket)
        return (self.model.params, self.table, *packed)

    def program(self, bucket: tuple[int, ...]) -> Any:
        """Of a bucket (T, R, L), or of padded rows (B, L)."""
        if bucket not in self._programs:
            function = self.model.functions.encode
            if len(bucket) == 3:
                function = partial(encode_tokens, self.model, bucket[2])
            self._programs[bucket] = jax.jit(function).lower(*self.arguments([[1]], bucket)).compile()
        return self._programs[bucket]

    def encoded(self, rows: Rows, bucket: Bucket, offset: int = 0) -> list[Any]:
        """Each row's encoded tokens [length, D]."""
        arguments = self.arguments(rows, bucket, offset)
        out = np.asarray(self.program(bucket)(*arguments))
        starts = arguments[3][: len(rows)]
        return [out[start : start + len(row)] for start, row in zip(starts, rows, strict=True)]


def bits(axis: TokenAxis, bucket: Bucket, pool: Rows, mixtures: int, seed: int = 0) -> tuple[int, int]:
    """(rows compared, rows with other bits than alone at offset 0): random neighbours, order and offset."""
    T, R, _ = bucket
    random = np.random.default_rng(seed)
    alone = [axis.encoded([row], bucket)[0].tobytes() for row in pool]
    compared = different = 0
    for _ in range(mixtures):
        taken, used, most = list[int](), 0, int(random.integers(1, R + 1))
        for index in random.permutation(len(pool)).tolist():
            if len(taken) < most and used + len(pool[index]) <= T:
                taken.append(index)
                used += len(pool[index])
        got = axis.encoded([pool[index] for index in taken], bucket, int(random.integers(0, T - used + 1)))
        compared += len(taken)
        different += sum(each.tobytes() != alone[index] for index, each in zip(taken, got, strict=True))
    return compared, different


class Contender:
    """Programs with their arguments; one run of all of them encodes the rows."""

    def __init__(self, axis: TokenAxis, parts: Sequence[tuple[Rows, tuple[int, ...]]]) -> None:
        self.calls = [(axis.program(bucket), axis.arguments(rows, bucket)) for rows, bucket in parts]
        self.positions = sum(bucket[0] if len(bucket) == 3 else bucket[0] * bucket[1] for _, bucket in parts)
        self.tokens = sum(len(row) for rows, _ in parts for row in rows)
        self.seconds: list[float] = []

    def run(self) -> None:
        started = time.perf_counter()
        jax.block_until_ready([program(*arguments) for program, arguments in self.calls])
        self.seconds.append(time.perf_counter() - started)

    def result(self) -> dict[str, Any]:
        seconds = self.seconds[1:]
        return {
            "milliseconds_median": round(1e3 * statistics.median(seconds), 2),
            "milliseconds_best": round(1e3 * min(seconds), 2),
            "programs_run": len(self.calls),
            "positions": self.positions,
            "tokens": self.tokens,
        }


def loads(axis: TokenAxis) -> dict[str, dict[str, Contender]]:
    """Contenders by load. Those called `padded` are the buckets that the server chooses today."""
    random = np.random.default_rng(0)
    sizes = random.permutation(np.linspace(20, 190, 16).round().astype(int))
    mixed: Rows = [random.integers(3, 30000, size=n).tolist() for n in sizes]
    ordered: Rows = sorted(mixed, key=len)
    whole, labels, members, one = ([[7] * n] * count for n, count in ((192, 8), (80, 8), (100, 5), (64, 1)))

    def contender(*parts: tuple[Rows, tuple[int, ...]]) -> Contender:
        return Contender(axis, parts)

    return {
        "16 rows of 20 to 190 tokens": {
            "padded, as they come": contender((mixed[:8], (8, 192)), (mixed[8:], (8, 192))),
            "padded, by length": contender((ordered[:8], (8, 128)), (ordered[8:], (8, 192))),
            "packed, one bucket": contender((mixed, (1792, 16, 192))),
            "packed, two buckets": contender((ordered[::2], (896, 8, 192)), (ordered[1::2], (896, 8, 192))),
        },
        "8 rows of 192 tokens": {
            "padded": contender((whole, (8, 192))),
            "packed": contender((whole, (1536, 8, 192))),
            "packed, blocks of 256": contender((whole, (1536, 8, 256))),
        },
        "8 rows of 80 tokens": {
            "padded": contender((labels, (8, 128))),
            "packed": contender((labels, (640, 8, 128))),
        },
        "5 rows of 100 tokens (members)": {
            "padded": contender(*(([row], (1, 128)) for row in members)),
            "padded, 8 rows": contender((members, (8, 128))),
            "packed": contender((members, (512, 8, 128))),
        },
        "1 row of 64 tokens": {
            "padded": contender((one, (1, 64))),
            "packed": contender((one, (64, 1, 64))),
        },
    }


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """The loads and the bits of one type of matrices."""
    loaded = load_model(options.model, matrix_dtype=jnp.bfloat16 if name == "bf16" else None)
    kind, _ = choose_attention("auto", loaded.model.dtype)
    axis = TokenAxis(loaded.model.with_attention(kind))
    contenders = loads(axis)
    for _ in range(options.rounds + 1):
        for of_load in contenders.values():
            for contender in of_load.values():
                contender.run()
    random, found = np.random.default_rng(1), {}
    for bucket in ((896, 8, 192), (512, 8, 128)):
        pool = [
            random.integers(3, 30000, size=int(n)).tolist() for n in random.integers(1, bucket[2] + 1, 16)
        ]
        compared, different = bits(axis, bucket, pool, options.mixtures)
        found[str(bucket)] = {"compared": compared, "different": different}
    return {
        "loads": {
            load: {name: contender.result() for name, contender in each.items()}
            for load, each in contenders.items()
        },
        "bits": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--types", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--mixtures", type=int, default=25)
    options = parser.parse_args()
    path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-{options.machine}-token_axis.json"
    result = json.loads(path.read_text()) if path.exists() else {"types": {}}
    result |= {
        "what": "token_axis",
        "machine": machine(),
        "jax": jax.__version__,
        "model": Path(options.model).name,
    }
    for name in options.types:
        result["types"][name] = measured(options, name)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
