"""Batches, evaluations and jobs of any other kind: how far they are, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import ApiError
from chorus.types.calibrations import CoveragePoint
from chorus.types.jobs import GeneralJob
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import Same, same

_PAGE = 25
_KINDS = ("evaluation", "batch", "calibration", "tuning")


async def table(visit: Visit) -> Response:
    """A page of the jobs, newest first."""
    query = visit.request.query_params
    kind, cursor = query.get("kind", ""), query.get("cursor") or None
    page = await visit.client.jobs.page(kind=kind or None, limit=_PAGE, cursor=cursor)
    return await visit.show(
        "jobs.html", jobs=page.jobs, next=page.next_cursor, cursor=cursor, kind=kind, kinds=_KINDS,
        same=same("GET", "/v1/jobs", "jobs = client.jobs.list()", "chorus", "batch", "list", kind=kind),
    )  # fmt: skip


async def one(visit: Visit) -> Response:
    """One job; an evaluation with its measures."""
    job = await visit.client.jobs.get(visit.request.path_params["job"])
    risks = await _risks(visit, job.result) if job.kind == "evaluation" and job.succeeded else []
    return await visit.show(
        "job.html", job=job, result=job.result, risks=risks, live=not job.over,
        same=_same(job),
    )  # fmt: skip


def _same(job: GeneralJob) -> list[Same]:
    """How a job is looked at, cancelled and resumed. Not every kind has a command for each."""
    group = {"evaluation": "evaluate", "tuning": "tune", "batch": "batch"}.get(job.kind)
    found = [
        same("GET", f"/v1/jobs/{job.id}", f"job = client.jobs.get({job.id!r})",
             *(("chorus", group, "show", job.id) if group else ())),
    ]  # fmt: skip
    for what in ("cancel", "resume"):
        there = group is not None and (what, group) != ("resume", "batch")
        words = ("chorus", group, what, job.id) if group and there else ()
        call = same("POST", f"/v1/jobs/{job.id}/{what}", f"job = client.jobs.{what}({job.id!r})", *words)
        found.append(call.doing(what.capitalize()))
    return found


async def live(visit: Visit) -> Response:
    """The part of a job's page that changes; when it is over, the whole page anew with what came of it."""
    job = await visit.client.jobs.get(visit.request.path_params["job"])
    if job.over:
        return visit.go(local("jobs", job.id))
    return await visit.show("job_now.html", job=job)


async def _risks(visit: Visit, result: Mapping[str, Any]) -> list[tuple[str, list[CoveragePoint]]]:
    """Of each task the coverage that its newest calibration promises for a wanted accuracy."""
    found = []
    for subject in result.get("subjects", [])[:4]:
        name = str(subject.get("name", ""))
        task, _, number = name.partition("@")
        if subject.get("kind") != "task" or not number:
            continue
        try:
            records = await visit.client.tasks.calibrations(task, int(number))
        except ApiError:
            continue
        for record in records[:1]:
            found.append((name, list(record.measures.calibrated.risk_coverage)))
    return found


async def change(visit: Visit) -> Response:
    """Cancel a job, or let a stopped one go on."""
    job, what = visit.request.path_params["job"], await visit.text("what")
    if what not in ("cancel", "resume"):
        raise HTTPException(400, "A job is cancelled or resumed.")
    await (visit.client.jobs.cancel(job) if what == "cancel" else visit.client.jobs.resume(job))
    return visit.go(local("jobs", job))


async def file(visit: Visit) -> Response:
    """The bytes of a file, as they come: answers, errors, predictions, data."""
    file = await visit.client.files.get(visit.request.path_params["file"])
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
        "Content-Length": str(file.size_bytes),
        "Content-Type": "application/octet-stream",
    }
    return await visit.send(visit.client.files.pieces(file), headers)
