"""Ladders: the shapes that are compiled at start, built from short lists in the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

from chorus_server.engine.plans import LEAST_TOKENS, BlockMode, BlockShape, Ladder
from chorus_server.errors import InvalidInputError


class ShapeLists(NamedTuple):
    """The lists from which `build_ladder` makes a ladder."""

    input_lengths: Sequence[int]
    batch_rows: Sequence[int]
    blocks: Sequence[Sequence[int]]
    score_buckets: Sequence[Sequence[int]]


_LENGTHS = (64, 128, 160, 192, 256, 320, 384, 512)
_TREES = ((1, 16), (8, 16), (1, 64), (8, 64))

PRESETS: Mapping[str, ShapeLists] = {
    "small": ShapeLists((64, 128, 192, 256), (1, 8), ((256, 64, 16),), _TREES),
    "medium": ShapeLists(_LENGTHS, (1, 8), ((128, 64, 16), (256, 64, 16), (512, 256, 8)), _TREES),
    "large": ShapeLists(
        _LENGTHS,
        (1, 8, 32),
        ((128, 64, 64), (256, 64, 64), (512, 256, 32)),
        ((1, 16), (32, 16), (1, 64), (8, 64)),
    ),
}
"""Lists by the names that the setting `shapes` has for them, in which each of them is a part."""

DEFAULT_PROMPT_ROWS = 8192
"""Rows of the prompt table where nothing says otherwise, and the fewest that `auto` chooses."""

_MEDIUM = PRESETS["medium"]


MAX_PROGRAMS = 256
"""Most programs that a start compiles: lengths, batch sizes and blocks multiply."""


def lists_of(
    preset: str,
    input_lengths: Sequence[int] | None = None,
    batch_rows: Sequence[int] | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
    score_buckets: Sequence[Sequence[int]] | None = None,
) -> ShapeLists:
    """The lists of a preset, but for those that are given. For `auto` they are those of `medium`, which it
    chooses on a CPU; whatever it chooses elsewhere has their longest input, most new tokens and targets."""
    lists = PRESETS["medium" if preset == "auto" else preset]
    return ShapeLists(
        input_lengths or lists.input_lengths,
        batch_rows or lists.batch_rows,
        blocks or lists.blocks,
        score_buckets or lists.score_buckets,
    )


def build_ladder(
    input_lengths: Sequence[int] = _MEDIUM.input_lengths,
    batch_rows: Sequence[int] = _MEDIUM.batch_rows,
    blocks: Sequence[Sequence[int]] = _MEDIUM.blocks,
    score_buckets: Sequence[Sequence[int]] = _MEDIUM.score_buckets,
    rows_per_load: int = 256,
) -> Ladder:
    """Build a ladder from the lists of the settings.

    Args:
        input_lengths: L of the input buckets, in tokens.
        batch_rows: B of the input buckets. Every length gets each of them.
        blocks: `(input tokens, new tokens, slots)` of each block; repeat an entry to have two such blocks.
        score_buckets: `(inputs of a dispatch, nodes of the tree of each one's targets)`.
        rows_per_load: prompt rows that one scatter writes.

    Raises:
        InvalidInputError: a list is not valid; names it.
    """
    _check_numbers("input_lengths", input_lengths)
    _check_numbers("batch_rows", batch_rows)
    _check_numbers("rows_per_load", (rows_per_load,))
    shapes = tuple(BlockShape(*_tuple("blocks", i, block, 3)) for i, block in enumerate(blocks))
    trees = tuple(
        (r, m) for r, m in (_tuple("score_buckets", i, pair, 2) for i, pair in enumerate(score_buckets))
    )
    if (least := min((nodes for _, nodes in trees), default=LEAST_TOKENS)) < LEAST_TOKENS:
        raise InvalidInputError(
            f"score_buckets needs trees of at least {LEAST_TOKENS} nodes, got {least}", field="score_buckets"
        )
    longest = max(input_lengths)
    if not any(shape.input_length >= longest for shape in shapes):
        raise InvalidInputError(
            f"no block holds an input of {longest} tokens; give one of blocks at least that many "
            f"input tokens or lower input_lengths",
            field="blocks",
        )
    buckets = sorted((length, rows) for length in set(input_lengths) for rows in set(batch_rows))
    return Ladder(tuple((rows, length) for length, rows in buckets), shapes, trees, rows_per_load)


def program_counts(ladder: Ladder) -> dict[str, int]:
    """How many programs a start compiles, by the setting that each belongs to."""
    return {
        "batch_rows": sum(len(ladder.token_counts(bucket)) for bucket in ladder.input_buckets),
        "score_buckets": sum(len(ladder.score_lengths(bucket)) for bucket in set(ladder.score_buckets)),
        # For each shape: admit, and decode in each mode.
        "blocks": len(set(ladder.blocks)) * (1 + len(get_args(BlockMode))),
        # An empty state, and rows to load.
        "prompt_rows": 2,
    }


def program_count(ladder: Ladder) -> int:
    """How many that is: the length of `executor.programs.programs`, without needing a model."""
    return sum(program_counts(ladder).values())


def tiny_ladder() -> Ladder:
    """A ladder that compiles in seconds, for tests and for models of test size."""
    return build_ladder((16, 32), (4,), ((16, 8, 4), (32, 16, 8)), ((4, 8),), rows_per_load=16)


def _check_numbers(setting: str, values: Sequence[int]) -> None:
    if not values or any(not isinstance(value, int) or value < 1 for value in values):
        raise InvalidInputError(
            f"{setting} needs whole numbers of at least 1, got {list(values)}", field=setting
        )


def _tuple(setting: str, index: int, values: Sequence[int], size: int) -> tuple[int, ...]:
    if len(values) != size:
        raise InvalidInputError(
            f"{setting}.{index} needs {size} numbers, as {'x'.join(['16'] * size)} has, got "
            f"{'x'.join(map(str, values))}",
            field=f"{setting}.{index}",
        )
    _check_numbers(f"{setting}.{index}", values)
    return tuple(values)
