"""What a prompt is near to, and what training moved: section 7 of the prompt-tuning paper."""

from __future__ import annotations

import array
import asyncio
import json
import math
import operator
import struct
import sys
from collections.abc import Sequence
from typing import TypeAlias

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus_console.door import Visit
from chorus_console.limits_form import whole_number
from chorus_console.same import Same, same

_MOST_ROWS = 48
_LONGEST = 100_000
_MOST_PRODUCTS = 600_000
_TOP = 5
_SHADES = 20


Row: TypeAlias = "array.array[float]"


async def show(visit: Visit) -> Response:
    """The pieces nearest to each row of a version, how alike its rows are, and those of another version."""
    query, client = visit.request.query_params, visit.client.tasks
    reference, other = query.get("task", "").strip(), query.get("other", "").strip()
    first = whole_number("first", query.get("first") or "0", _LONGEST)
    page = await client.page(limit=100)
    known = [task.task for task in page.tasks]
    if not reference:
        return await visit.show(
            "interpret.html", task="", other="", version=None, known=known, same=_same("TASK@1")
        )
    version = await client.version(reference)
    pinned = f"{version.task}@{version.version}"
    near, file = await asyncio.gather(client.neighbors(pinned, top_k=_TOP), client.artifact(pinned))
    rows = await visit.work(read_rows, file, first)
    moved: list[tuple[float, float]] = []
    if other:
        theirs = await visit.work(read_rows, await client.artifact(other), first)
        moved = await visit.work(moves, rows, theirs)
    return await visit.show(
        "interpret.html", task=reference, other=other, version=version, known=known, moved=moved,
        rows=near.rows[first : first + _MOST_ROWS], first=first, most=_MOST_ROWS, count=len(near.rows),
        alike=await visit.work(drawn, rows), same=_same(pinned),
    )  # fmt: skip


def _same(pinned: str) -> Same:
    owner, _, bare = pinned.rpartition("/")
    task, _, number = bare.partition("@")
    return same(
        "GET", f"/v1/tasks/{task}/versions/{number}/neighbors", f"near = client.tasks.neighbors({pinned!r})",
        "chorus", "tasks", "neighbors", pinned, top_k=_TOP, tenant=owner,
    )  # fmt: skip


def read_rows(file: bytes, start: int = 0) -> list[Row]:
    """Rows of a prompt from one on, as many as a page shows, given its safetensors file."""
    size = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8 : 8 + size])["prompt"]
    length, width = header["shape"]
    first, end = header["data_offsets"]
    values = array.array("f", file[8 + size + first : 8 + size + end])
    if sys.byteorder == "big":
        values.byteswap()
    return [values[i * width : (i + 1) * width] for i in range(start, min(length, start + _MOST_ROWS))]


def cosine(a: Row, b: Row) -> float:
    """The cosine between two rows; 0 if one of them is zero."""
    return _cosine(a, b, math.hypot(*a) * math.hypot(*b))


def _cosine(a: Sequence[float], b: Sequence[float], norms: float) -> float:
    return sum(map(operator.mul, a, b)) / norms if norms else 0.0


def moves(rows: list[Row], theirs: list[Row]) -> list[tuple[float, float]]:
    """The cosine and the distance between each row and the one in its place in another prompt.

    Raises:
        HTTPException: 400, the prompts are of models of different widths.
    """
    if not rows or not theirs:  # a page of rows that the shorter prompt lacks
        return []
    width, other = len(rows[0]), len(theirs[0])
    if width != other:
        raise HTTPException(400, f"The rows have {width} numbers, those of the other version {other}.")
    return [(cosine(a, b), math.dist(a, b)) for a, b in zip(rows, theirs, strict=False)]


def drawn(rows: list[Row]) -> tuple[int, list[tuple[float, str]]]:
    """The likeness of rows as a picture: how many rows it has, and of each shade its opacity with the path of
    its squares, so that a page of any prompt stays small."""
    alike = likeness(rows)
    paths: dict[int, list[str]] = {}
    for y, line in enumerate(alike):
        x = 0
        while x < len(line):
            shade, first = max(0, round(_SHADES * line[x])), x
            while x < len(line) and max(0, round(_SHADES * line[x])) == shade:
                x += 1
            if shade:
                paths.setdefault(shade, []).append(f"M{first} {y}h{x - first}v1h{first - x}z")
    return len(alike), [(shade / _SHADES, "".join(path)) for shade, path in sorted(paths.items())]


def likeness(rows: list[Row]) -> list[list[float]]:
    """The cosine between each of the first rows and each other: so many of them that it takes some
    milliseconds, whatever the model's width."""
    some = rows[: max(2, math.isqrt(_MOST_PRODUCTS // max(1, len(rows[0]))))] if rows else []
    found = [[1.0] * len(some) for _ in some]
    lists = [row.tolist() for row in some]  # whose numbers are made once
    norms = [math.hypot(*row) for row in lists]
    for i, a in enumerate(lists):
        for j in range(i):
            found[i][j] = found[j][i] = _cosine(a, lists[j], norms[i] * norms[j])
    return found
