"""Tuning jobs: listed, followed, stopped, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.responses import Response

from chorus import InvalidArgumentError, NotFoundError
from chorus.cli.job_lines import prompt_names
from chorus.cli.job_view import JobView
from chorus.types import Job
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import Same, same
from chorus_console.trials import MOST_TRIALS, trials_of

T = TypeVar("T")

_PAGE = 25
_STATUSES = ("queued", "preparing", "running", "succeeded", "failed", "cancelled")
_MOST_POINTS = 400
_MOST_LINES = 64
"""Of a curve. With all of them it has no more points than 16 lines alone would."""
MOST_PROMPTS = 64
"""Of a table."""


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


_DEEDS = ("pause", "cancel", "resume")


async def one(visit: Visit) -> Response:
    """A job: its curves while it runs, what it made, and what it was asked."""
    job, view = await _followed(visit)
    return await visit.show(
        "tune_job.html", fragment=False, spec=_asked(job), **_shown(job, view),
        same=[
            same("GET", f"/v1/tuning/jobs/{job.id}", f"job = client.tuning.get({job.id!r})",
                 "chorus", "tune", "show", job.id),
            *(same("POST", f"/v1/tuning/jobs/{job.id}/{what}", f"job = client.tuning.{what}({job.id!r})",
                   "chorus", "tune", what, job.id).doing(what.capitalize()) for what in _DEEDS),
        ],
    )  # fmt: skip


async def live(visit: Visit) -> Response:
    """The part of a job's page that changes."""
    job, view = await _followed(visit)
    return await visit.show("tune_live.html", fragment=True, **_shown(job, view))


def _shown(job: Job, view: JobView) -> dict[str, Any]:
    names, trials = prompt_names(job), trials_of(job, view)
    knobs = list(dict.fromkeys(name for trial in trials for name in trial.knobs))
    return {
        "job": job, "view": view, "curves": curves(view, names), "names": names, "knobs": knobs,
        "trials": trials[:MOST_TRIALS], "more_trials": max(0, len(trials) - MOST_TRIALS),
        "prompts": sorted(view.prompts.items())[:MOST_PROMPTS],
        "more_prompts": max(0, len(view.prompts) - MOST_PROMPTS),
    }  # fmt: skip


async def mistakes(visit: Visit) -> Response:
    """What one of a job's new versions gets wrong."""
    job = await visit.client.tuning.get(visit.request.path_params["job"])
    found, gone = [], False
    try:
        found = await visit.client.tuning.mistakes(job)
    except InvalidArgumentError:  # it made no version, or an earlier server ran it
        pass
    except NotFoundError:  # told in its place: nothing of the job's page failed
        gone = True
    wanted = visit.request.query_params.get("of", "")
    one = next((each for each in found if each["reference"] == wanted), found[0] if found else None)
    return await visit.show(
        "tune_mistakes.html", job=job, found=found, gone=gone, one=one, same=_reading(job)
    )


def _reading(job: Job) -> Same:
    file = job.result.get("mistakes") or "file-…"
    return same(
        "GET", f"/v1/files/{file}/content",
        f"found = client.tuning.mistakes(client.tuning.get({job.id!r}))",
        "chorus", "tune", "mistakes", job.id,
    )  # fmt: skip


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


def curves(view: JobView, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The loss, and the metric that chooses the checkpoint for each prompt, as `console.js` draws them.

    Args:
        names: of the prompts, by their places; of a single one none is needed.
    """
    found = []
    if view.losses:
        points = _thinned(view.losses)
        lines = [{"name": "loss", "values": [y for _, y in points]}]
        found.append({"title": "Loss", "unit": "step", "x": [x for x, _ in points], "lines": lines})
    best = sorted(view.prompts.items(), key=lambda each: each[1].best is None or -each[1].best[0])
    drawn = sorted(best[:_MOST_LINES])
    most = min(_MOST_POINTS, 16 * _MOST_POINTS // max(1, len(drawn)))
    steps = _thinned(sorted({step for _, prompt in drawn for step, _ in prompt.curve}), most)
    if steps:
        lines = []
        for place, prompt in drawn:
            values = dict(prompt.curve)
            name = names[place] if place < len(names) else prompt.task
            lines.append({"name": name, "values": [values.get(step) for step in steps]})
        title = f"{view.metric.replace('_', ' ').capitalize()} on the validation split"
        found.append({"title": title, "unit": "step", "x": steps, "lines": lines})
    return found


def _thinned(points: list[T], most: int = _MOST_POINTS) -> list[T]:
    """At most so many of them, evenly, with the last."""
    every = -(-len(points) // most)
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


async def pause(visit: Visit) -> Response:
    """Let a job wait, from its next checkpoint on."""
    job = await visit.client.tuning.pause(visit.request.path_params["job"])
    return visit.go(local("tune", job.id))


async def resume(visit: Visit) -> Response:
    """Let a stopped or paused job go on from its checkpoint."""
    job = await visit.client.tuning.resume(visit.request.path_params["job"])
    return visit.go(local("tune", job.id))
