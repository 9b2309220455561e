"""Ladders: the shapes compiled at start, made from short settings lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from server.engine.plans import BlockMode, BlockShape, Ladder
from server.errors import InvalidInputError

DEFAULT_INPUT_LENGTHS = (64, 128, 160, 192, 256, 320, 384, 512)
DEFAULT_BATCH_ROWS = (1, 8)
DEFAULT_BLOCKS = ((128, 64, 16), (256, 64, 16), (512, 256, 8))
DEFAULT_SCORE = ((8, 8),)


def build_ladder(
    input_lengths: Sequence[int] = DEFAULT_INPUT_LENGTHS,
    batch_rows: Sequence[int] = DEFAULT_BATCH_ROWS,
    blocks: Sequence[Sequence[int]] = DEFAULT_BLOCKS,
    score_buckets: Sequence[Sequence[int]] = DEFAULT_SCORE,
    rows_per_load: int = 256,
) -> Ladder:
    """A ladder from settings lists.

    Args:
        input_lengths: L of the input buckets, tokens.
        batch_rows: B of the input buckets; every length gets each of them.
        blocks: `(input tokens, new tokens, slots)` of each block; repeat an entry to have two such blocks.
        score_buckets: `(targets an input, tokens a target)`.
        rows_per_load: prompt rows that one scatter writes.

    Raises:
        InvalidInputError: names the setting.
    """
    _check_numbers("input_lengths", input_lengths)
    _check_numbers("batch_rows", batch_rows)
    _check_numbers("rows_per_load", (rows_per_load,))
    shapes = tuple(BlockShape(*_tuple("blocks", i, block, 3)) for i, block in enumerate(blocks))
    targets = tuple(
        (c, t) for c, t in (_tuple("score_buckets", i, pair, 2) for i, pair in enumerate(score_buckets))
    )
    longest = max(input_lengths)
    if not any(shape.input_length >= longest for shape in shapes):
        raise InvalidInputError(
            f"no block holds an input of {longest} tokens; give one of blocks at least that many "
            f"input tokens or lower input_lengths",
            field="blocks",
        )
    buckets = sorted((length, rows) for length in set(input_lengths) for rows in set(batch_rows))
    return Ladder(tuple((rows, length) for length, rows in buckets), shapes, targets, rows_per_load)


def program_count(ladder: Ladder) -> int:
    """Programs that a start compiles: the length of `executor.programs.programs`, without a model."""
    shapes = set(ladder.blocks)
    admissions = sum(length <= shape.input_length for _, length in ladder.input_buckets for shape in shapes)
    encoders = len(ladder.input_buckets) * (1 + len(ladder.score_buckets))
    decoders = len(shapes) * (1 + len(get_args(BlockMode)))
    return 2 + encoders + admissions + decoders


def tiny_ladder() -> Ladder:
    """A ladder that compiles in seconds: for tests and for models of test size."""
    return build_ladder((16, 32), (4,), ((16, 8, 4), (32, 16, 8)), ((3, 4),), rows_per_load=16)


def _check_numbers(setting: str, values: Sequence[int]) -> None:
    if not values or any(not isinstance(value, int) or value < 1 for value in values):
        raise InvalidInputError(
            f"{setting} needs whole numbers of at least 1, got {list(values)}", field=setting
        )


def _tuple(setting: str, index: int, values: Sequence[int], size: int) -> tuple[int, ...]:
    if len(values) != size:
        raise InvalidInputError(
            f"{setting}.{index} needs {size} numbers, got {list(values)}", field=f"{setting}.{index}"
        )
    _check_numbers(f"{setting}.{index}", values)
    return tuple(values)
