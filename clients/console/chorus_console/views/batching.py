"""A new batch: the lines of a file, or the rows of a table, answered one by one."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import ChorusError
from chorus_console import data
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same
from chorus_console.views import forms
from chorus_console.views.asked_fields import asked, columns_of_fields, known_names, template_fields

_WAYS = (("", "by its labels, if it has some"), ("/v1/classify", "by labels"), ("/v1/generate", "by text"))
_LINE = {"custom_id", "url", "body"}


async def new(visit: Visit) -> Response:
    """The form that takes a file."""
    await visit.needs("tune")
    return await visit.show(
        "batch_new.html",
        same=same(
            "POST", "/v1/batches", "job = client.batches.start('lines.jsonl', '/v1/classify')",
            "chorus", "batch", "run", "rows.csv", "answers.csv", "--task", "sentiment",
            body={"file": "file-…", "endpoint": "/v1/classify"},
        ).doing("Start the batch"),
    )  # fmt: skip


async def look(visit: Visit) -> Response:
    """What is in a file: a table, or lines that say themselves what is asked."""
    looked, known = await asyncio.gather(forms.looked_at(visit, answered=False), known_names(visit.client))
    found = looked.found
    lines = bool(found.first) and set(found.columns) >= _LINE
    return await visit.show(
        "batch_data.html", name=looked.name, found=found, file=looked.file, known=known, ways=_WAYS,
        endpoint=found.first[0]["url"] if lines else "", kept=await visit.text("id") == looked.file,
    )  # fmt: skip


async def start(visit: Visit) -> Response:
    """Queue a batch."""
    file, endpoint = await forms.stored(visit), await visit.text("endpoint")
    if endpoint:
        job = await visit.client.batches.start(file, endpoint)
        return visit.go(local("jobs", job.id))
    tasks = await asked(visit)
    if not tasks:
        raise HTTPException(400, "Name the task that is asked.")
    version = await visit.client.tasks.version(tasks[0])
    way = await visit.text("way") or ("/v1/classify" if version.labels else "/v1/generate")
    if way not in [each for each, _ in _WAYS]:
        raise HTTPException(400, "A table is answered by labels or by text.")
    columns = await columns_of_fields(visit)
    columns = {name: columns.get(name, name) for name in await template_fields(visit.client, tasks)}
    content = await visit.client.files.content(file)
    lines = await visit.work(_lines, content, file.name, tasks[0], way, columns)
    pushed = await visit.client.files.push(lines, name=f"{file.name}.batch.jsonl")
    try:
        job = await visit.client.batches.start(pushed, way, metadata={"table": file.name[:200]})
    except ChorusError:
        with suppress(ChorusError):  # the caller must see the refusal
            await visit.client.files.delete(pushed)
        raise
    if await visit.text("kept") != "1":  # its rows are in the lines
        with suppress(ChorusError):
            await visit.client.files.delete(file)
    return visit.go(local("jobs", job.id))


def _lines(content: bytes, name: str, task: str, way: str, columns: dict[str, str]) -> bytes:
    """The lines of a batch of a table's rows; the id of each is the row's number, from 1."""
    found, made = data.Look(), []
    for number, row in enumerate(data.rows_of(content, name, found), 1):
        if missing := [column for column in columns.values() if column not in row]:
            raise HTTPException(400, f"The file has no column {missing[0]}.")
        given = {field: row[column] for field, column in columns.items()}
        line: dict[str, Any] = {"custom_id": str(number), "method": "POST", "url": way}
        line["body"] = {"task": task, "input": given}
        made.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return b"".join(made)
