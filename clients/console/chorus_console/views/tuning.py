"""Tuning: a file is looked at before anything is queued, and a job is followed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus.cli.job_view import JobView
from chorus.types import Job
from chorus_console import data
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same
from chorus_console.templates_of import filled

T = TypeVar("T")

_PAGE = 25
_STATUSES = ("queued", "preparing", "running", "succeeded", "failed", "cancelled")
_KNOBS = ("steps", "prompt_length", "batch_size", "evaluate_every_steps")
_MOST_POINTS = 400
_MOST_TEMPLATE = 16_384
_MOST_SHOWN = 400
"""Characters of a filled template; the page cuts it to fewer."""


@dataclass(slots=True)
class _Followed:
    """A job whose events were read up to the `last`; whoever looks next reads only those after it."""

    view: JobView = field(default_factory=JobView)
    last: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_MOST_FOLLOWED = 32
_FOLLOWED: dict[str, _Followed] = {}
"""By the job's id; the one looked at longest ago goes first."""


async def table(visit: Visit) -> Response:
    """A page of the jobs, newest first."""
    query = visit.request.query_params
    status, cursor = query.get("status", ""), query.get("cursor") or None
    page = await visit.client.tuning.page(status=status or None, limit=_PAGE, cursor=cursor)
    return await visit.show(
        "tune.html", jobs=page.jobs, next=page.next_cursor, cursor=cursor, status=status, statuses=_STATUSES,
        same=same("GET", "/v1/tuning/jobs", "jobs = client.tuning.list()", "chorus", "tune", "list",
                  status=status),
    )  # fmt: skip


async def new(visit: Visit) -> Response:
    """The form that takes a file."""
    return await visit.show("tune_new.html", same=_starting())


def _starting() -> Any:
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
    file = (await visit.form()).get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise HTTPException(400, "Choose a file: CSV, TSV or JSON Lines, whose columns have names.")
    content = await file.read()
    found = await visit.work(data.look, content, file.filename)
    if found.problems:
        return await visit.show("tune_data.html", name=file.filename, found=found, file=None)
    stored = await visit.client.files.push(content, name=file.filename)
    return await visit.show(
        "tune_data.html", name=file.filename, found=found, file=stored.id, sample=json.dumps(found.sample),
        template=found.template, answers=found.answers,
    )  # fmt: skip


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
    names = {data.field_name(column): column for column in map(str, form.getlist("column"))}
    renamed = {name: column for name, column in names.items() if name != column and f"{{{name}}}" in template}
    labels = [line.strip() for line in (await visit.text("labels")).splitlines() if line.strip()]
    knobs = {name: await _count(visit, name) for name in _KNOBS}
    recipe: dict[str, Any] = {name: value for name, value in knobs.items() if value is not None}
    if rate := await visit.text("learning_rate"):
        try:
            recipe["learning_rate"] = float(rate)
        except ValueError:
            raise HTTPException(400, "The learning rate is a number, such as 0.3.") from None
    rows = await _count(visit, "validation_rows")
    job = await visit.client.tuning.start(
        task,
        train=await visit.text("file"),
        data=None if rows is None else {"validation_rows": rows},
        recipe=recipe,
        template=template,
        columns=renamed or None,
        target=await visit.text("target"),
        labels=labels or None,
        seed=await _count(visit, "seed"),
        ensemble=await _count(visit, "ensemble"),
        promote=await visit.text("promote") == "on" or None,
    )
    return visit.go(local("tune", job.id))


async def _count(visit: Visit, name: str) -> int | None:
    text = (await visit.text(name)).replace(",", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(400, f"{name.replace('_', ' ')} is a whole number.")
    return int(text)


async def one(visit: Visit) -> Response:
    """A job: its curves while it runs, what it made, and what it was asked."""
    job, view = await _followed(visit)
    return await visit.show(
        "tune_job.html", fragment=False, job=job, view=view, curves=curves(view), spec=_asked(job),
        same=[
            same("GET", f"/v1/tuning/jobs/{job.id}", f"job = client.tuning.get({job.id!r})",
                 "chorus", "tune", "show", job.id),
            *(same("POST", f"/v1/tuning/jobs/{job.id}/{what}", f"job = client.tuning.{what}({job.id!r})",
                   "chorus", "tune", what, job.id).doing(what.capitalize()) for what in ("cancel", "resume")),
        ],
    )  # fmt: skip


async def live(visit: Visit) -> Response:
    """The part of a job's page that changes."""
    job, view = await _followed(visit)
    return await visit.show("tune_live.html", fragment=True, job=job, view=view, curves=curves(view))


async def _followed(visit: Visit) -> tuple[Job, JobView]:
    job = await visit.client.tuning.get(visit.request.path_params["job"])  # which says who may see it
    followed = _FOLLOWED.pop(job.id, None) or _Followed()
    _FOLLOWED[job.id] = followed
    if len(_FOLLOWED) > _MOST_FOLLOWED:
        del _FOLLOWED[next(iter(_FOLLOWED))]
    async with followed.turn:
        for event in await visit.client.tuning.past_events(job.id, after=followed.last):
            followed.view.apply(event)
            followed.last = event.seq
    return job, followed.view


def curves(view: JobView) -> list[dict[str, Any]]:
    """The loss, and the metric that chooses the checkpoint for each prompt, as `console.js` draws them."""
    found = []
    if view.losses:
        points = _thinned(view.losses)
        lines = [{"name": "loss", "values": [y for _, y in points]}]
        found.append({"title": "Loss", "unit": "step", "x": [x for x, _ in points], "lines": lines})
    steps = _thinned(sorted({step for prompt in view.prompts.values() for step, _ in prompt.curve}))
    if steps:
        lines = []
        for place, prompt in sorted(view.prompts.items()):
            values = dict(prompt.curve)
            name = prompt.task if len(view.prompts) == 1 else f"{prompt.task} {place + 1}"
            lines.append({"name": name, "values": [values.get(step) for step in steps]})
        title = f"{view.metric.replace('_', ' ').capitalize()} on the validation split"
        found.append({"title": title, "unit": "step", "x": steps, "lines": lines})
    return found


def _thinned(points: list[T]) -> list[T]:
    """At most `_MOST_POINTS` of them, evenly, with the last."""
    every = -(-len(points) // _MOST_POINTS)
    return points[::-1][::every][::-1] if every > 1 else points


def _asked(job: Job) -> dict[str, object]:
    """What the job was asked that a person wrote, with the recipe's knobs."""
    prompts = job.spec.get("prompts") or [{}]
    first = prompts[0] if isinstance(prompts[0], dict) else {}
    named = {name: first.get(name, job.spec.get(name)) for name in ("template", "target", "labels")}
    recipe = first.get("recipe") or job.spec.get("recipe") or {}
    return named | (recipe if isinstance(recipe, dict) else {})


async def cancel(visit: Visit) -> Response:
    """Stop a job for good; its checkpoint stays for some days."""
    job = await visit.client.tuning.cancel(visit.request.path_params["job"])
    return visit.go(local("tune", job.id))


async def resume(visit: Visit) -> Response:
    """Let a stopped job go on from its checkpoint."""
    job = await visit.client.tuning.resume(visit.request.path_params["job"])
    return visit.go(local("tune", job.id))
