"""`GET /v1/operations`: what this process does now, and did in the last hour. An operator sees everybody's;
others see their own tenant's by name, and the rest added up. `POST /v1/store/check`: read the store back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayOperate, MayScrape
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.responses import READ_ERRORS, errors
from chorus_server.api.inference.answers import json_response
from chorus_server.api.jobs.seeing import may_see
from chorus_server.api.schemas.operations import OperationsAnswer, StoreCheckAnswer
from chorus_server.api.services import Services, services_of
from chorus_server.api.upkeep import StoreCheck
from chorus_server.engine.stats import LISTED_TASKS, EngineLook, PrefillSummary, TenantQueue
from chorus_server.errors import ChorusError
from chorus_server.jobs.runner import this_process
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.errors import StoreError
from prompts_store.jobs.records import Job
from prompts_store.records import LeaseHolder
from prompts_store.store import PromptStore
from prompts_store.upkeep.check_report import KINDS

router = APIRouter(route_class=ChorusRoute, tags=["server"])

_LISTED_TENANTS = 64


@router.get("/v1/operations", response_model=OperationsAnswer, responses=READ_ERRORS)
async def show_operations(
    request: Request,
    principal: MayScrape,
    minutes: Annotated[int, Query(ge=0, le=60, description="Of the past, in `hour`; 0 for none.")] = 60,
) -> Response:
    """What this process does now, and did in the last hour. Operators see every tenant; others see their own,
    and the rest added up."""
    return json_response(await _operations(services_of(request), principal, minutes))


@router.post(
    "/v1/store/check", status_code=202, response_model=StoreCheckAnswer, responses=errors(401, 403, 429, 503)
)
async def check_store(request: Request, principal: MayOperate) -> Response:
    """Begin to read the whole store back, as `chorus store check` does, in this process; if that is under
    way, tell so. It changes nothing, and nobody waits for it. `GET /v1/operations` of the same process says
    what came of it."""
    return json_response(_check(services_of(request).upkeep.begin_check()), 202)


async def _operations(services: Services, caller: Principal, minutes: float) -> dict[str, Any]:
    """The answer, also while the database is away or the server starts.

    Args:
        minutes: of the past.
    """
    operator = Scope.OPERATOR in caller.scopes
    # The engine may keep whoever asks it waiting.
    found = await services.text.run(_now, services, caller, operator, minutes)
    store, holders = await _stored(services, operator)
    return found | {"store": store, "lease_holders": holders}


def _now(services: Services, caller: Principal, operator: bool, minutes: float) -> dict[str, Any]:
    serving = services.serving
    look = EngineLook() if serving is None else serving.engine.look()
    stats = look.stats

    def names(task: str) -> bool:
        """Whether the caller may know of this task."""
        owner, _, name = task.partition("/")
        return operator or (owner == caller.tenant and caller.may_name(name))

    return {
        "process": this_process() if operator else None,
        "status": services.lifecycle.phase,
        "requests": {name: getattr(stats, name) for name in ("queued", "loading", "prefilling", "decoding")},
        "slots": {"in_use": stats.slots_in_use, "total": stats.slots_total},
        "prompt_rows": {
            "resident": stats.rows_resident,
            "in_use": stats.rows_in_use,
            "pinned": stats.rows_pinned,
            "capacity": stats.rows_capacity,
            "prompts": stats.prompts_resident,
        },
        "batch": {
            **_tasks({task: n for task, n in look.on_device.items() if names(task)}, look.on_device),
            "last_prefill": None
            if look.prefill is None
            else _prefill(look.prefill, look.prefill_seconds_ago),
        },
        "queue": _queue(look.queue, None if operator else caller.tenant),
        "prompts": {
            "resident": [task for task in stats.resident_tasks if names(task)],
            "waiting": [task for task in stats.waiting_tasks if names(task)],
        },
        "jobs": _jobs(services, caller, operator),
        "compiles": _compiles(services),
        "memory": _memory(services),
        "hour": [tick.model_dump() for tick in services.hour.since(minutes)] if minutes else [],
    }


def _tasks(named: Mapping[str, int], every: Mapping[str, int]) -> dict[str, Any]:
    most = sorted(named.items(), key=lambda each: (-each[1], each[0]))[:LISTED_TASKS]
    told = sum(requests for _, requests in most)
    return {
        "tasks": [{"task": task or None, "requests": requests} for task, requests in most],
        "others": {"tasks": len(every) - len(most), "requests": sum(every.values()) - told},
    }


def _prefill(last: PrefillSummary, seconds_ago: float) -> dict[str, Any]:
    return {
        "kind": last.kind,
        "requests": sum(last.tasks.values()),
        "tasks": len(last.tasks),
        "tokens": last.tokens,
        "padded_tokens": last.padded_tokens,
        "padding": 1 - last.tokens / max(1, last.padded_tokens),
        "seconds_ago": round(seconds_ago, 3),
    }


def _queue(queue: Iterable[TenantQueue], tenant: str | None) -> dict[str, Any]:
    """Of everybody by name, if `tenant` is None."""
    most = sorted(queue, key=lambda each: (-each.units, each.tenant))
    shown = [each for each in most if tenant in (None, each.tenant)][:_LISTED_TENANTS]
    return {
        "tenants": [{"tenant": e.tenant, "requests": e.requests, "work_units": e.units} for e in shown],
        "others": {
            "tenants": len(most) - len(shown),
            "requests": sum(e.requests for e in most) - sum(e.requests for e in shown),
            "work_units": sum(e.units for e in most) - sum(e.units for e in shown),
        },
    }


def _jobs(services: Services, caller: Principal, operator: bool) -> dict[str, Any]:
    runners = [runner for runner in (services.tuning, *services.engine_jobs) if runner is not None]
    jobs = [job for runner in runners for job in runner.jobs]
    seen = [job for job in jobs if operator or (job.tenant == caller.tenant and may_see(caller, job))]
    return {"running": [_job(job) for job in seen], "others": len(jobs) - len(seen)}


def _job(job: Job) -> dict[str, Any]:
    names = ("id", "kind", "tenant", "created_at", "started_at", "attempt")
    return {name: getattr(job, name) for name in names}


def _compiles(services: Services) -> dict[str, Any] | None:
    start = None if services.serving is None else services.serving.start
    if start is None:
        return None
    causes: dict[str, int] = {}
    for (_, cause), count in sorted(start.watch.counts().items()):
        causes[cause] = causes.get(cause, 0) + count
    last = [asdict(each) for each in reversed(start.watch.last())]
    return {**asdict(start.compiled), "by_cause": causes, "last": last}


def _memory(services: Services) -> dict[str, Any] | None:
    start = None if services.serving is None else services.serving.start
    if start is None:
        return None
    uses = [{"use": use, "bytes": count, "settings": settings} for use, count, settings in start.plan.rows()]
    return {"uses": uses, "total": start.plan.total, "limit": start.plan.limit}


async def _stored(services: Services, operator: bool) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """How the store is, and for operators who holds leases, while the database answers."""
    trouble, last, check = services.library.health.report(), services.upkeep.last, services.upkeep.check
    seen: _Seen | None = None
    if trouble is None:
        with suppress(ChorusError, StoreError):
            seen = await services.library.read(_see, services.library.store)
    store = {
        "trouble": trouble,
        # What went wrong may name folders and other stores.
        "last_collection": None if last is None else asdict(last) | ({} if operator else {"message": ""}),
        "collection_due_at": None if seen is None else seen[0],
        # Others' things may be at fault.
        "check": None if check is None or not operator else _check(check),
    }
    if seen is None or not operator:
        return store, None
    ours = (("jobs", this_process(), seen[1]), ("budgets", services.budgets.replica, seen[2]))
    return store, [
        {**asdict(holder), "of": of, "this": holder.name == name}
        for of, name, holders in ours
        for holder in holders
    ]


def _check(check: StoreCheck) -> dict[str, Any]:
    report = check.report
    counted = ("versions", "blobs", "files", "orphans", "temporary_files")
    problems = () if report is None else report.problems
    return {
        **{name: getattr(check, name) for name in ("started_at", "ended_at", "fence_fault", "message")},
        "clean": None if report is None else report.clean,
        **{name: 0 if report is None else getattr(report, name) for name in counted},
        "problems": [
            {
                "kind": kind,
                **KINDS[kind]._asdict(),
                "count": count,
                "first": [
                    {"where": each.where, "message": each.message} for each in problems if each.kind == kind
                ],
            }
            for kind, count in check.found.items()
        ],
    }


_Seen = tuple[datetime | None, list[LeaseHolder], list[LeaseHolder]]


def _see(store: PromptStore) -> _Seen:
    return store.upkeep_due_at(), store.job_holders(), store.budget_holders()
