"""Batches, evaluations and jobs of any other kind: how far they are, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import ApiError
from chorus.types.calibrations import CoveragePoint
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same

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
    words = ("evaluate" if job.kind == "evaluation" else "tune" if job.kind == "tuning" else "batch", "show")
    return await visit.show(
        "job.html", job=job, result=job.result, risks=risks, live=not job.over,
        same=same("GET", f"/v1/jobs/{job.id}", f"job = client.jobs.get({job.id!r})",
                  "chorus", *words, job.id),
    )  # fmt: skip


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
    """The bytes of a file that a job made: answers, errors, predictions."""
    name = visit.request.path_params["file"]
    content = await visit.client.files.content(name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
    return Response(content, media_type="application/x-ndjson", headers=headers)
