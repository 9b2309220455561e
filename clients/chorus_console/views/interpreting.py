"""What a prompt is near to: section 7 of the prompt-tuning paper."""

from __future__ import annotations

import array
import asyncio
import json
import math
import struct
import sys

from starlette.responses import Response

from chorus_console.door import Visit
from chorus_console.same import same

_MOST_ROWS = 48
_TOP = 5


async def show(visit: Visit) -> Response:
    """The pieces nearest to each row of a version, and how alike its rows are."""
    query = visit.request.query_params
    reference = query.get("task", "").strip()
    suggested = [task.task for task in (await visit.client.tasks.page(limit=100)).tasks]
    if not reference:
        return await visit.show("interpret.html", task="", version=None, known=suggested, same=_same("TASK"))
    version = await visit.client.tasks.version(reference)
    pinned = f"{version.task}@{version.version}"
    near, file = await asyncio.gather(
        visit.client.tasks.neighbors(pinned, top_k=_TOP), visit.client.tasks.artifact(pinned)
    )
    alike = await asyncio.to_thread(likeness, file)
    return await visit.show(
        "interpret.html", task=reference, version=version, known=suggested, rows=near.rows[:_MOST_ROWS],
        left=max(0, len(near.rows) - _MOST_ROWS), alike=alike, same=_same(pinned),
    )  # fmt: skip


def _same(pinned: str) -> object:
    task, _, number = pinned.rpartition("/")[2].partition("@")
    return same(
        "GET", f"/v1/tasks/{task}/versions/{number or 1}/neighbors",
        f"near = client.tasks.neighbors({pinned!r})",
        "chorus", "tasks", "neighbors", pinned, top_k=_TOP,
    )  # fmt: skip


def likeness(file: bytes) -> list[list[float]]:
    """Cosines between the first rows of a prompt, given its safetensors file."""
    size = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8 : 8 + size])["prompt"]
    length, width = header["shape"]
    first, end = header["data_offsets"]
    values = array.array("f", file[8 + size + first : 8 + size + end])
    if sys.byteorder == "big":
        values.byteswap()
    rows = [values[i * width : (i + 1) * width] for i in range(min(length, _MOST_ROWS))]
    norms = [_norm(row) for row in rows]
    return [
        [sum(map(float.__mul__, a, b)) / (norms[i] * norms[j]) for j, b in enumerate(rows)]
        for i, a in enumerate(rows)
    ]


def _norm(row: array.array[float]) -> float:
    return math.sqrt(sum(map(float.__mul__, row, row))) or 1.0
