"""A new evaluation: how good the answers of tasks, ensembles and the base model are on a file."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import AsyncClient, ChorusError, NotFoundError
from chorus_console.data import field_name
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same
from chorus_console.templates_of import fields_of
from chorus_console.views import forms
from chorus_console.views.asked_fields import asked, columns_of_fields, known_names

_WAYS = (
    ("", "ranked where there are labels, else as written text"),
    ("ranked", "the most probable label"),
    ("calibrated", "the same, by calibrated probabilities"),
    ("greedy", "the text that the model writes"),
)


async def new(visit: Visit) -> Response:
    """The form that takes a file."""
    await visit.needs("tune")
    document = {"subjects": [{"task": "sentiment@1"}, {"task": "sentiment@3"}], "file": "file-…"}
    return await visit.show(
        "evaluate_new.html",
        same=same(
            "POST", "/v1/evaluations",
            "job = client.evaluations.start(['sentiment@1', 'sentiment@3'], 'dev.tsv')",
            "chorus", "evaluate", "start", "sentiment@1", "sentiment@3", "dev.tsv", body=document,
        ).doing("Start the evaluation"),
    )  # fmt: skip


async def look(visit: Visit) -> Response:
    """What is in a file, and who is asked about it."""
    looked, known = await asyncio.gather(forms.looked_at(visit), known_names(visit.client))
    return await visit.show(
        "evaluate_data.html", name=looked.name, found=looked.found, file=looked.file,
        template=looked.found.template, known=known, ways=_WAYS,
    )  # fmt: skip


async def start(visit: Visit) -> Response:
    """Queue an evaluation."""
    file = await forms.stored(visit)
    subjects: list[dict[str, Any]] = [await _subject(visit.client, each) for each in await asked(visit)]
    columns = await columns_of_fields(visit)
    if await visit.text("base") == "on":
        base = await _base(visit)
        subjects.append({"base": base})
        names = {field_name(each): each for each in map(str, (await visit.form()).getlist("column"))}
        of_base = {name: names[name] for name in fields_of(base["template"]) if name in names}
        columns = of_base | columns
    if await visit.text("majority") == "on":
        subjects.append({"majority": True})
    if not subjects:
        raise HTTPException(400, "Name a task or an ensemble, or choose the base model.")
    examples = await forms.dropped(visit, "examples")
    sent = await visit.client.files.push(examples[1], name=examples[0]) if examples else None
    try:
        job = await visit.client.evaluations.start(
            subjects,
            file,
            examples=sent,
            labels=await forms.lines(visit, "labels") or None,
            answer_by=await visit.text("answer_by") or None,
            columns={name: column for name, column in columns.items() if name != column} or None,
            target=await visit.text("target"),
            target_texts=await forms.pairs(visit, "target_texts", "0=negative") or None,
        )
    except (ChorusError, HTTPException):
        if sent is not None:
            with suppress(ChorusError):  # the caller must see the refusal
                await visit.client.files.delete(sent)
        raise
    return visit.go(local("jobs", job.id))


async def _base(visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = {"template": await visit.text("template", "{text}") or "{text}"}
    if instruction := await visit.text("instruction"):
        found["instruction"] = instruction
    if shots := await forms.count(visit, "few_shot"):
        found["few_shot"] = shots
    return found


async def _subject(client: AsyncClient, name: str) -> dict[str, Any]:
    """`sst2@3`, an ensemble's name, or `pack:NAME:QUESTION`."""
    if name.startswith("pack:"):
        pack, _, question = name.removeprefix("pack:").partition(":")
        return {"pack": pack, "question": question}
    try:
        await client.tasks.version(name)
    except NotFoundError:
        with suppress(NotFoundError):
            await client.ensembles.get(name)
            return {"ensemble": name}
    return {"task": name}
