"""A new tuning job: its file is looked at before anything is queued."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus.cli.spaces import knob_values
from chorus_console import data
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import Same, same
from chorus_console.templates_of import filled
from chorus_console.views import forms

_SPLITS = {"validation": "chooses the checkpoint", "test": "is measured once, at the end"}
_KNOBS = ("steps", "prompt_length", "batch_size", "evaluate_every_steps")
_VARIED = ("learning_rate", "prompt_length", "batch_size", "steps")
"""Knobs with a field of their own in the form of a search."""
_SEARCHES = ("grid", "random", "halving")
_MOST_TEMPLATE = 16_384
_MOST_SHOWN = 400
"""Characters of a filled template; the page cuts it to fewer."""


async def new(visit: Visit) -> Response:
    """The form that takes a file."""
    await visit.needs("tune")
    return await visit.show("tune_new.html", same=_starting())


def _starting() -> Same:
    document = {
        "task": "tickets", "data": {"train": {"file": "file-…"}}, "template": "{text}", "target": "label",
        "labels": ["yes", "no"],
    }  # fmt: skip
    return same(
        "POST", "/v1/tuning/jobs",
        "job = client.tuning.start('tickets', train='train.csv', target='label', labels=['yes', 'no'])",
        *("chorus", "tune", "start", "tickets", "train.csv"),
        *("--target", "label", "--label", "yes", "--label", "no"),
        body=document,
    ).doing("Start tuning")  # fmt: skip


async def look(visit: Visit) -> Response:
    """What is in a file: rows, columns and what is wrong. It is uploaded if nothing is."""
    looked = await forms.looked_at(visit)
    found = looked.found
    return await visit.show(
        "tune_data.html", name=looked.name, found=found, file=looked.file, sample=json.dumps(found.sample),
        template=found.template, answers=found.answers, varied=_VARIED, searches=_SEARCHES, splits=_SPLITS,
    )  # fmt: skip


async def look_at_split(visit: Visit) -> Response:
    """The same for a file of validation or test rows, which are like those of training."""
    split, form = visit.request.url.path.rpartition("/")[2], await visit.form()
    columns = tuple(map(str, form.getlist("column")))
    target, labels = await visit.text("target"), await forms.lines(visit, "labels")
    if target not in columns:
        raise HTTPException(400, "Choose the column of the answers first.")
    template = await visit.text("template")
    needed = tuple(each for each in columns if each == target or f"{{{data.field_name(each)}}}" in template)
    looked = await forms.looked_at(visit, like=data.Like(needed, target, frozenset(labels)))
    return await visit.show("tune_split.html", split=split, looked=looked)


async def preview(visit: Visit) -> Response:
    """The first rows as the template makes them, and the answers of the chosen column."""
    template, target = await visit.text("template"), await visit.text("target")
    if len(template) > _MOST_TEMPLATE:
        raise HTTPException(
            400, f"The template has {len(template):,} characters, up to {_MOST_TEMPLATE:,} can be."
        )
    try:
        first = json.loads(await visit.text("sample", "[]"))
    except (ValueError, RecursionError):
        first = []
    rows = [row for row in first if isinstance(row, dict)][:5] if isinstance(first, list) else []
    texts = []
    for row in rows:
        fields = {data.field_name(name): str(value) for name, value in row.items()}
        texts.append((filled(template, fields, _MOST_SHOWN), str(row.get(target, "–"))[:_MOST_SHOWN]))
    return await visit.show("tune_preview.html", texts=texts)


async def start(visit: Visit) -> Response:
    """Queue a job."""
    form = await visit.form()
    task, template = await visit.text("task"), await visit.text("template")
    if not task:
        raise HTTPException(400, "Name the task that gets the new version.")
    for split in _SPLITS:
        if wrong := await visit.text(f"{split}.wrong"):
            raise HTTPException(
                400,
                f"The {split} file {wrong[:60]} has a fault: mend it and drop it again, or do not use it.",
            )
    names = {data.field_name(column): column for column in map(str, form.getlist("column"))}
    renamed = {name: column for name, column in names.items() if name != column and f"{{{name}}}" in template}
    knobs = {name: await forms.count(visit, name) for name in _KNOBS}
    recipe: dict[str, Any] = {name: value for name, value in knobs.items() if value is not None}
    if rate := await visit.text("learning_rate"):
        recipe["learning_rate"] = forms.number("The learning rate", rate, "0.3")
    rows = await forms.count(visit, "validation_rows")
    job = await visit.client.tuning.start(
        task,
        train=await forms.stored(visit),
        validation=await forms.stored_if_any(visit, "validation"),
        test=await forms.stored_if_any(visit, "test"),
        data=None if rows is None else {"validation_rows": rows},
        recipe=recipe,
        template=template,
        columns=renamed or None,
        target=await visit.text("target"),
        labels=await forms.lines(visit, "labels") or None,
        seed=await forms.count(visit, "seed"),
        ensemble=await forms.count(visit, "ensemble"),
        seeds=await forms.count(visit, "seeds"),
        sweep=await _search(visit),
        promote=await visit.text("promote") == "on" or None,
    )
    return visit.go(local("tune", job.id))


async def _search(visit: Visit) -> dict[str, Any] | None:
    """The part `sweep` of a document; None if nothing varies."""
    varied = {f"space.{name}": await visit.text(f"space.{name}") for name in _VARIED}
    texts = {name.removeprefix("space."): text for name, text in varied.items() if text}
    texts |= await forms.pairs(visit, "space", "dropout_rate=0,0.1")
    if not texts:
        return None
    search = await visit.text("search", _SEARCHES[0])
    if search not in _SEARCHES:
        raise HTTPException(400, f"A search is one of {', '.join(_SEARCHES)}.")
    counted = {name: await forms.count(visit, name) for name in ("count", "eta", "publish")}
    return {"search": search, "space": knob_values(texts)} | {
        name: value for name, value in counted.items() if value is not None
    }
