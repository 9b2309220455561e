"""The part of the fake server that has files and tuning jobs; a job's events are what a test puts there."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx2

NOW = "2026-01-01T00:00:00Z"


def refuse(status: int, code: str, message: str, field: str | None = None) -> httpx2.Response:
    """An error answer in the one shape."""
    body = {"error": {"code": code, "message": message, "field": field, "request_id": "req_1"}}
    return httpx2.Response(status, json=body)


def happened(seq: int, kind: str, data: dict[str, Any], at: str = NOW) -> dict[str, Any]:
    """One event of a job."""
    return {"seq": seq, "at": at, "kind": kind, "data": data}


def sent(found: dict[str, Any]) -> bytes:
    """It as a server-sent event."""
    return f"id: {found['seq']}\nevent: {found['kind']}\ndata: {json.dumps(found)}\n\n".encode()


class FakeTuning:
    """Files and jobs in memory.

    Attributes:
        script: events, after the first, that every new job has; the last `status` of them ends it.
        result: of jobs that succeed.
        error: of jobs that fail.
    """

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.script: list[dict[str, Any]] = [happened(2, "status", {"status": "succeeded"})]
        self.result: dict[str, Any] = {"prompts": [], "ensemble": None}
        self.error: dict[str, Any] | None = None
        self.refusal: httpx2.Response | None = None

    def files(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return _page("files", [*self.records.values()][::-1], request)
        identity = f"file-{len(self.records):024x}"
        content = request.content
        self.data[identity] = content
        self.records[identity] = {
            "id": identity,
            "name": request.url.params["name"],
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "created_at": NOW,
            "created_by": "me",
        }
        return httpx2.Response(201, json=self.records[identity])

    def file(self, request: httpx2.Request, identity: str) -> httpx2.Response:
        if identity not in self.records:
            return refuse(404, "unknown_file", f"There is no file {identity!r}.", "file")
        if request.method == "DELETE":
            del self.records[identity], self.data[identity]
            return httpx2.Response(204)
        return httpx2.Response(200, json=self.records[identity])

    def tuning_jobs(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            status = request.url.params.get("status")
            found = [job for job in self.jobs.values() if status in (None, job["status"])][::-1]
            short = [{k: v for k, v in job.items() if k not in ("spec", "result")} for job in found]
            return _page("jobs", short, request)
        if self.refusal is not None:
            return self.refusal
        body = json.loads(request.content)
        identity = f"job-{len(self.jobs):024x}"
        names = [body["task"]] if "task" in body else [prompt["task"] for prompt in body["prompts"]]
        self.jobs[identity] = {
            **{"id": identity, "status": "queued", "tasks": [f"default/{name}" for name in names]},
            **{"created_at": NOW, "created_by": "me", "started_at": None, "finished_at": None},
            **{"error": None, "progress": {}, "cancel_requested": False, "attempt": 0},
            **{"spec": body, "result": {}},
        }
        self.events[identity] = [happened(1, "status", {"status": "queued"}), *self.script]
        return httpx2.Response(201, json=self.jobs[identity])

    def tuning_job(self, request: httpx2.Request, identity: str) -> httpx2.Response:
        if identity not in self.jobs:
            return refuse(404, "unknown_job", f"There is no job {identity!r}.", "job")
        return httpx2.Response(200, json=self.jobs[identity])

    def change(self, request: httpx2.Request, identity: str, verb: str) -> httpx2.Response:
        job = self.jobs[identity]
        over = job["status"] not in ("queued", "preparing", "running")
        if verb == "cancel" and over:
            return refuse(409, "job_over", "The job is over.", "job")
        if verb == "resume" and job["status"] not in ("failed", "cancelled"):
            return refuse(409, "job_not_stopped", "The job did not stop.", "job")
        job["status"] = "cancelled" if verb == "cancel" else "queued"
        return httpx2.Response(200, json=job)

    def job_events(self, request: httpx2.Request, identity: str) -> httpx2.Response:
        if identity not in self.jobs:
            return refuse(404, "unknown_job", f"There is no job {identity!r}.", "job")
        after = int(request.url.params.get("after", "0"))
        found = [event for event in self.events[identity] if event["seq"] > after]
        if request.url.params.get("follow") == "false":
            limit = int(request.url.params.get("limit", "500"))
            return httpx2.Response(200, json={"events": found[:limit]})
        return httpx2.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b": keep-alive\n\n" + b"".join(map(sent, found)) + self._end(identity),
        )

    def _end(self, identity: str) -> bytes:
        job = self.jobs[identity]
        job["status"] = [e["data"]["status"] for e in self.events[identity] if e["kind"] == "status"][-1]
        job["result"] = self.result if job["status"] == "succeeded" else {}
        job["error"] = self.error
        return f"event: done\ndata: {json.dumps({'id': identity, 'status': job['status']})}\n\n".encode()


def _page(name: str, items: list[dict[str, Any]], request: httpx2.Request) -> httpx2.Response:
    """Two of them, whatever was asked, so that tests see pages."""
    start = int(request.url.params.get("cursor", "0"))
    more = str(start + 2) if start + 2 < len(items) else None
    return httpx2.Response(200, json={name: items[start : start + 2], "next_cursor": more})


TUNING_ROUTES = (
    (r"/v1/files", "files"),
    (r"/v1/files/([^/]+)", "file"),
    (r"/v1/tuning/jobs", "tuning_jobs"),
    (r"/v1/tuning/jobs/([^/]+)", "tuning_job"),
    (r"/v1/tuning/jobs/([^/]+)/events", "job_events"),
    (r"/v1/tuning/jobs/([^/]+)/(cancel|resume)", "change"),
)
