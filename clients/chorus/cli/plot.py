"""A curve in characters: eight dots in each cell if the terminal speaks Unicode, otherwise one star."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

_MARGIN = 8
_BRAILLE = 0x2800
# Bits of a cell's dots, by row and column (Unicode, Braille Patterns).
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
LOGARITHMIC_FROM = 10.0
"""If the largest value is this many times the smallest, heights are logarithms."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn curve.

    Attributes:
        lines: top line first, with the range of values on the left.
        logarithmic: whether heights are logarithms, so that the end of a long fall can be seen.
    """

    lines: list[str]
    logarithmic: bool = False


def plot(
    points: Sequence[Point],
    width: int,
    height: int,
    *,
    axis: tuple[float, float] | None = None,
    unicode: bool = True,
) -> Plot:
    """Draw a curve. Points that share a column are drawn as their mean.

    Args:
        points: in ascending order of x; values that are not finite are left out.
        width: of a line, in characters.
        height: in lines.
        axis: where the x axis begins and ends; None means at the first and last point.
    """
    known = [(x, y) for x, y in points if math.isfinite(y)]
    if not known:
        return Plot([""] * height)
    first, last = axis if axis is not None else (known[0][0], known[-1][0])
    across, down = (2, 4) if unicode else (1, 1)
    columns = max(1, width - _MARGIN)
    means = _binned(known, columns * across, first, last)
    low, high = min(means.values()), max(means.values())
    logarithmic = low > 0 and high >= LOGARITHMIC_FROM * low
    heights = _heights(means, logarithmic, height * down)
    cells = _cells(_drawn(heights, columns * across, height * down), columns, height, unicode)
    named = {0: _label(high), height - 1: _label(low)} if high > low else {height // 2: _label(high)}
    lines = [f"{named.get(row, ''):>{_MARGIN - 1}} {cells[row]}".rstrip() for row in range(height)]
    return Plot(lines, logarithmic)


def short(value: float) -> str:
    """A value in a few characters."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.1e}"


def _label(value: float) -> str:
    """The label of a value beside the plot."""
    text = short(value)
    return text if len(text) < _MARGIN else f"{value:.0e}"


def rate(value: float) -> str:
    """A speed, with three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _binned(points: Sequence[Point], columns: int, first: float, last: float) -> dict[int, float]:
    """Mean value of each column that has points."""
    found: dict[int, list[float]] = {}
    for x, y in points:
        share = (x - first) / (last - first) if last > first else 0.0
        found.setdefault(round(min(1.0, max(0.0, share)) * (columns - 1)), []).append(y)
    return {column: sum(value / len(values) for value in values) for column, values in found.items()}


def _heights(means: dict[int, float], logarithmic: bool, rows: int) -> dict[int, int]:
    """Row of each column, 0 at the bottom."""
    bend = math.log if logarithmic else float
    # Halved, because the difference of the largest floats would overflow.
    bottom, top = bend(min(means.values())) / 2, bend(max(means.values())) / 2
    span = top - bottom
    if not span > 0:  # all values are in the line that is labelled
        return dict.fromkeys(means, (rows - 1) // 2)
    return {column: round((bend(mean) / 2 - bottom) / span * (rows - 1)) for column, mean in means.items()}


def _drawn(heights: dict[int, int], columns: int, rows: int) -> list[list[bool]]:
    """Dots, top row first; neighbouring points are joined."""
    grid = [[False] * columns for _ in range(rows)]
    before: tuple[int, int] | None = None
    for column, height in sorted(heights.items()):
        start = before if before is not None else (column, height)
        steps = max(column - start[0], abs(height - start[1]), 1)
        for step in range(steps + 1):
            x = start[0] + round((column - start[0]) * step / steps)
            y = start[1] + round((height - start[1]) * step / steps)
            grid[rows - 1 - y][x] = True
        before = (column, height)
    return grid


def _cells(grid: list[list[bool]], columns: int, height: int, unicode: bool) -> list[str]:
    if not unicode:
        return ["".join("*" if dot else " " for dot in row) for row in grid]
    lines = []
    for top in range(0, height * 4, 4):
        line = ""
        for left in range(0, columns * 2, 2):
            bits = sum(
                _DOTS[down][across]
                for down in range(4)
                for across in range(2)
                if grid[top + down][left + across]
            )
            line += chr(_BRAILLE + bits) if bits else " "
        lines.append(line)
    return lines
