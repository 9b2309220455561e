"""A curve in characters: eight dots a cell where the terminal speaks Unicode, one star otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]

_BRAILLE = 0x2800
# Bits of the dots of a cell, by row and column (Unicode, Braille Patterns).
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
LOGARITHMIC_FROM = 10.0
"""Where the largest value is so many times the smallest, heights are logarithms."""


def plot(
    points: Sequence[Point], width: int, height: int, *, end: float | None = None, unicode: bool = True
) -> list[str]:
    """Lines of a plot, top first, with the range of values at its left.

    Args:
        points: by x, ascending; values that are not finite are left out.
        width: of the lines, in characters.
        height: in lines.
        end: where the x axis ends; at the last point where it is None.
    """
    known = [(x, y) for x, y in points if math.isfinite(y)]
    if not known:
        return [""] * height
    low, high = min(y for _, y in known), max(y for _, y in known)
    margin = max(len(short(low)), len(short(high))) + 1
    columns = max(1, width - margin)
    across, down = (2, 4) if unicode else (1, 1)
    heights = _heights(_binned(known, columns * across, end), low, high, height * down)
    grid = _drawn(heights, columns * across, height * down)
    cells = _cells(grid, columns, height, unicode)
    named = {0: short(high), height - 1: short(low)} if high > low else {height // 2: short(high)}
    return [f"{named.get(row, ''):>{margin - 1}} {cells[row]}".rstrip() for row in range(height)]


def is_logarithmic(points: Sequence[Point]) -> bool:
    """Whether heights are logarithms, so that the end of a long fall can be seen."""
    values = [y for _, y in points if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) >= LOGARITHMIC_FROM * min(values)


def short(value: float) -> str:
    """A value in few characters."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.1e}"


def _binned(points: Sequence[Point], columns: int, end: float | None) -> dict[int, float]:
    """Mean value of each column that has points."""
    first, last = points[0][0], end if end is not None else points[-1][0]
    span = max(last - first, 1e-9)
    found: dict[int, list[float]] = {}
    for x, y in points:
        column = min(columns - 1, int((x - first) / span * (columns - 1) + 0.5)) if last > first else 0
        found.setdefault(max(0, column), []).append(y)
    return {column: sum(values) / len(values) for column, values in found.items()}


def _heights(means: dict[int, float], low: float, high: float, rows: int) -> dict[int, int]:
    """Row of each column, 0 at the bottom."""
    bend = math.log if is_logarithmic([(0, low), (0, high)]) else float
    bottom, top = bend(low), bend(high)
    span = top - bottom
    if span <= 0:
        return dict.fromkeys(means, rows // 2)
    return {column: round((bend(mean) - bottom) / span * (rows - 1)) for column, mean in means.items()}


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
