"""Batches, evaluations and jobs of any other kind: how far they are, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import Response

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
        same=same("GET", "/v1/jobs", f"jobs = client.jobs.list({f'kind={kind!r}' if kind else ''})",
                  "chorus", "jobs", "list", *(["--kind", kind] if kind else []), kind=kind),
    )  # fmt: skip


async def one(visit: Visit) -> Response:
    """One job; an evaluation with its measures."""
    job = await visit.client.jobs.get(visit.request.path_params["job"])
    return await visit.show(
        "job.html", job=job, result=job.result, live=not job.over, same=_same(job), risk=risk
    )


def _same(job: GeneralJob) -> list[Same]:
    """How a job is looked at, cancelled and resumed."""
    return [
        same("GET", f"/v1/jobs/{job.id}", f"job = client.jobs.get({job.id!r})",
             "chorus", "jobs", "show", job.id),
        *(same("POST", f"/v1/jobs/{job.id}/{what}", f"job = client.jobs.{what}({job.id!r})",
               "chorus", "jobs", what, job.id).doing(what.capitalize()) for what in ("cancel", "resume")),
    ]  # fmt: skip


async def live(visit: Visit) -> Response:
    """The part of a job's page that changes; when it is over, the whole page anew with what came of it."""
    job = await visit.client.jobs.get(visit.request.path_params["job"])
    if job.over:
        return visit.go(local("jobs", job.id))
    return await visit.show("job_now.html", job=job)


def risk(bins: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """For each share of rows, the surest first, the share of wrong answers among them."""
    rows, answered, wrong, found = sum(each["rows"] for each in bins), 0, 0.0, []
    for each in sorted(bins, key=lambda each: -each["confidence"]):
        answered, wrong = answered + each["rows"], wrong + each["rows"] * (1 - each["accuracy"])
        found.append((answered / rows, wrong / answered))
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
