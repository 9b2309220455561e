"""A server that speaks docs/rest.md with answers computable by hand, in memory or on a real socket."""

from __future__ import annotations

import email
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

from tests.clients.fake_tuning import TUNING_ROUTES, FakeTuning

NOW = "2026-01-01T00:00:00Z"
Handler = Callable[[httpx2.Request], httpx2.Response]


def refuse(status: int, code: str, message: str, field: str | None = None, **headers: str) -> httpx2.Response:
    """An error answer in the one shape."""
    body = {"error": {"code": code, "message": message, "field": field, "request_id": "req_1"}}
    return httpx2.Response(
        status, json=body, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


def parse_upload(request: httpx2.Request) -> tuple[bytes, dict[str, Any]]:
    """File and metadata of a multipart upload."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parsed = email.message_from_bytes(head + request.content, policy=HTTP)
    parts = {part.get_param("name", header="content-disposition"): part for part in parsed.iter_parts()}
    metadata = json.loads(parts["metadata"].get_payload(decode=True))
    return parts["file"].get_payload(decode=True), metadata


class FakeChorus:
    """Tasks in memory; a generation is the input in capitals."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[tuple[str, int], bytes] = {}
        self.aliases: dict[str, dict[str, int]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.ensembles: dict[str, list[dict[str, Any]]] = {}
        self.seen: list[httpx2.Request] = []
        self.ready = True
        self.trouble: dict[str, Any] | None = None
        self.tuning = FakeTuning()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        self.seen.append(request)
        path = request.url.path
        for pattern, method in ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None:
                answer: httpx2.Response = getattr(self, method)(request, *match.groups())
                return answer
        for pattern, method in TUNING_ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None:
                found: httpx2.Response = getattr(self.tuning, method)(request, *match.groups())
                return found
        return refuse(404, "not_found", f"There is no {path}.")

    def _task(self, name: str) -> dict[str, Any]:
        versions = self.tasks[name]
        shown = {"task": f"default/{name}", "description": "", "created_at": NOW, "versions": len(versions)}
        return {**shown, "latest": len(versions), "aliases": self.aliases[name]}

    def _version(self, name: str, number: int) -> dict[str, Any]:
        names = [alias for alias, at in self.aliases[name].items() if at == number]
        return {**self.tasks[name][number - 1], "aliases": names}

    def list_tasks(self, request: httpx2.Request) -> httpx2.Response:
        names = sorted(n for n in self.tasks if n.startswith(request.url.params.get("prefix", "")))
        start = int(request.url.params.get("cursor", "0"))
        end = start + min(int(request.url.params.get("limit", "50")), 2)
        more = str(end) if end < len(names) else None
        return httpx2.Response(
            200, json={"tasks": [self._task(n) for n in names[start:end]], "next_cursor": more}
        )

    def task(self, request: httpx2.Request, name: str) -> httpx2.Response:
        if name not in self.tasks:
            return refuse(404, "unknown_task", f"There is no task {name!r}.", "task")
        if request.method == "DELETE":
            del self.tasks[name]
            return httpx2.Response(204)
        return httpx2.Response(200, json=self._task(name))

    def versions(self, request: httpx2.Request, name: str) -> httpx2.Response:
        if request.method == "GET":
            shown = [self._version(name, v["version"]) for v in reversed(self.tasks[name])]
            return httpx2.Response(200, json={"versions": shown, "next_cursor": None})
        content, metadata = parse_upload(request)
        digest = hashlib.sha256(content + json.dumps(metadata).encode()).hexdigest()
        known = self.tasks.setdefault(name, [])
        for version in known:
            if version["manifest_digest"] == digest:
                return httpx2.Response(
                    200, json={**self._version(name, version["version"]), "created": False}
                )
        number = len(known) + 1
        described = {"template": "{text}", "labels": [], "settings": {}, **metadata}
        known.append(
            {
                **{k: v for k, v in described.items() if k != "description"},
                **{"task": f"default/{name}", "version": number, "digest": digest, "manifest_digest": digest},
                **{"kind": "soft_prompt", "length": 2, "width": 3, "created_at": NOW, "created_by": "me"},
            }
        )
        self.files[name, number] = content
        self.history.setdefault(name, [])
        if number == 1:
            self.aliases[name] = {"live": 1}
        return httpx2.Response(
            201, json={**self._version(name, number), "created": True, "notes": ["as it was"]}
        )

    def version(self, request: httpx2.Request, name: str, number: str) -> httpx2.Response:
        if int(number) > len(self.tasks.get(name, [])):
            return refuse(404, "unknown_version", f"{name} has no version {number}.", "version")
        if request.method == "DELETE":
            if int(number) in self.aliases[name].values():
                return refuse(409, "conflict", "The alias live names it.", "version")
            return httpx2.Response(204)
        return httpx2.Response(200, json=self._version(name, int(number)))

    def artifact(self, request: httpx2.Request, name: str, number: str) -> httpx2.Response:
        return httpx2.Response(200, content=self.files[name, int(number)])

    def neighbors(self, request: httpx2.Request, name: str, number: str) -> httpx2.Response:
        count = int(request.url.params.get("top_k", "5"))
        near = [{"piece": f"▁p{i}", "id": i, "cosine": 0.5} for i in range(count)]
        body = {
            "task": f"default/{name}",
            "version": int(number),
            "rows": [{"row": 0, "norm": 1.5, "neighbors": near}],
        }
        return httpx2.Response(200, json=body)

    def show_aliases(self, request: httpx2.Request, name: str) -> httpx2.Response:
        return httpx2.Response(200, json={"aliases": self.aliases[name], "history": self.history[name]})

    def alias(self, request: httpx2.Request, name: str, alias: str) -> httpx2.Response:
        if request.method == "DELETE":
            del self.aliases[name][alias]
            return httpx2.Response(204)
        return self._move(name, alias, json.loads(request.content)["version"])

    def _move(self, name: str, alias: str, version: int) -> httpx2.Response:
        moved = {"alias": alias, "version": version, "previous": self.aliases[name].get(alias)}
        self.aliases[name][alias] = version
        self.history[name].append({**moved, "moved_at": NOW, "moved_by": "me"})
        return httpx2.Response(200, json=moved)

    def rollback(self, request: httpx2.Request, name: str) -> httpx2.Response:
        alias = json.loads(request.content)["alias"]
        moves = [m for m in self.history[name] if m["alias"] == alias and m["previous"] is not None]
        if not moves:
            return refuse(409, "conflict", "There is nothing to go back to.", "alias")
        return self._move(name, alias, moves[-1]["previous"])

    def ensemble_list(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, json={"ensembles": [v[-1] for v in self.ensembles.values()], "next_cursor": None}
        )

    def ensemble_versions(self, request: httpx2.Request, name: str) -> httpx2.Response:
        made = self.ensembles.setdefault(name, [])
        if request.method == "GET":
            return httpx2.Response(200, json={"versions": made[::-1], "next_cursor": None})
        asked = json.loads(request.content)
        weights = asked["weights"] or [1.0] * len(asked["tasks"])
        members = [
            {"task": t, "version": 1, "weight": w} for t, w in zip(asked["tasks"], weights, strict=True)
        ]
        shown = {
            "ensemble": f"default/{name}",
            "version": len(made) + 1,
            "vote": asked["vote"],
            "members": members,
        }
        made.append({**shown, "digest": "d" * 64, "created_at": NOW, "aliases": {"live": 1}})
        return httpx2.Response(201, json=made[-1])

    def ensemble_one(self, request: httpx2.Request, name: str) -> httpx2.Response:
        if name not in self.ensembles:
            return refuse(404, "unknown_ensemble", f"There is no ensemble {name!r}.", "ensemble")
        if request.method == "DELETE":
            del self.ensembles[name]
            return httpx2.Response(204)
        return httpx2.Response(200, json=self.ensembles[name][-1])

    def _items(self, body: dict[str, Any]) -> list[tuple[str | None, Any]]:
        if "requests" in body:
            return [(item.get("task"), item["input"]) for item in body["requests"]]
        return [(body.get("task"), text) for text in body.get("inputs", [body.get("input")])]

    def _generation(self, task: str | None, given: Any) -> dict[str, Any]:
        text = given if isinstance(given, str) else " ".join(given.values())
        if "fail" in text:
            detail = {"code": "internal", "message": "It broke.", "field": None, "request_id": "req_1"}
            return {"task": task, "error": detail}
        usage = {"input_tokens": 5, "prompt_tokens": 2, "output_tokens": 3}
        who = {
            "task": task,
            "version": None if task is None else 1,
            "digest": None if task is None else "d" * 64,
        }
        return {**who, "text": text.upper(), "finish_reason": "stop", "truncated": False, "usage": usage}

    def generate(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        items = self._items(body)
        known = {None, *(f"default/{name}" for name in self.tasks), *self.tasks}
        for index, (task, _) in enumerate(items):
            if (task or "").partition("@")[0] not in {name or "" for name in known}:
                return refuse(404, "unknown_task", f"There is no task {task!r}.", f"requests.{index}.task")
        results = [self._generation(*item) for item in items]
        if body.get("stream"):
            return httpx2.Response(
                200, headers={"content-type": "text/event-stream"}, content=b"".join(events(results))
            )
        failed = all("error" in item for item in results)
        return httpx2.Response(500 if failed else 200, json={"id": "req_1", "results": results})

    def classify(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        labels = body.get("labels") or ["no", "yes"]
        shares = {label: 1.0 / len(labels) for label in labels}
        usage = {"input_tokens": 5, "prompt_tokens": 2, "output_tokens": 0}
        who = {"task": body["task"], "version": 1, "digest": "d" * 64, "label": labels[-1], "usage": usage}
        one = {**who, "probabilities": shares, "log_probabilities": shares, "truncated": False}
        return httpx2.Response(200, json={"id": "req_1", "results": [one for _ in self._items(body)]})

    def ensemble(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        members = [
            {"task": t, "version": 1, "digest": "d", "answer": "yes", "log_probability": -0.1, "weight": 1.0}
            for t in body.get("tasks", ["default/a"])
        ]
        stored = None if "tasks" in body else {"task": body["ensemble"], "version": 1}
        one = {"answer": "yes", "counts": {"yes": len(members)}, "agreement": 1.0, "ensemble": stored}
        results = [{**one, "truncated": False, "members": members} for _ in self._items(body)]
        return httpx2.Response(200, json={"id": "req_1", "results": results})

    def model(self, request: httpx2.Request) -> httpx2.Response:
        names = {
            "name": "tiny",
            "fingerprint": "f" * 64,
            "vocabulary_digest": "v",
            "config": {},
            "layout": "unrolled",
        }
        sizes = {"parameters": 7, "max_input_tokens": 128, "max_new_tokens": 32, "prompt_rows": 64}
        return httpx2.Response(200, json={**names, **sizes, "compute_dtype": "float32", "version": "0.1.0"})

    def readyz(self, request: httpx2.Request) -> httpx2.Response:
        if self.ready:
            return httpx2.Response(200, json={"status": "ready", "store": self.trouble})
        return httpx2.Response(503, json={"status": "compiling", "done": 3, "total": 24})

    def healthz(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"status": "ok"})

    def metrics(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text="# TYPE chorus_requests_total counter\n")

    def me(self, request: httpx2.Request) -> httpx2.Response:
        most = ("body_bytes", "upload_bytes", "batch_rows", "labels", "deadline_seconds", "unfinished_jobs")
        limits = {f"max_{name}": 100 for name in most}
        tenant = {"tenant": "default", "status": "active"}
        return httpx2.Response(200, json={"tenant": tenant, "scopes": ["infer"], "limits": limits})

    def operations(self, request: httpx2.Request) -> httpx2.Response:
        minutes = int(request.url.params["minutes"])
        return httpx2.Response(200, json=OPERATIONS | {"hour": [tick(n) for n in range(6 * minutes)]})

    def check_store(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(202, json=CHECK | {"ended_at": None, "clean": None, "problems": []})

    def usage(self, request: httpx2.Request) -> httpx2.Response:
        groups = request.url.params.get_list("group_by")
        counts = {"items": 1200, "tokens_in": 7, "tokens_out": 3, "work_units": 10}
        start = "2026-11-01T00:00:00Z" if {"hour", "day", "month"} & set(groups) else None
        named = {name: f"a {name}" if name in groups else None for name in ("tenant", "key", "outcome")}
        first = {"start": start, "task": "acme/sst2" if "task" in groups else None, **named, **counts}
        return httpx2.Response(200, json={"group_by": groups, "usage": [first, first | {"task": None}]})


CHECK: dict[str, Any] = {
    "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:01:00Z", "clean": False,
    "versions": 3, "blobs": 2, "files": 1, "orphans": 0, "temporary_files": 0, "fence_fault": None,
    "message": "",
    "problems": [
        {
            "kind": "missing_blob", "meaning": "Values are missing.", "advice": "Publish them again.",
            "count": 12, "first": [{"where": "d" * 64, "message": "it is missing"}],
        }
    ],
}  # fmt: skip

OPERATIONS: dict[str, Any] = {
    "process": "host process 7",
    "status": "ready",
    "requests": {"queued": 41, "loading": 0, "prefilling": 8, "decoding": 24},
    "slots": {"in_use": 24, "total": 32},
    "prompt_rows": {"resident": 400, "in_use": 160, "pinned": 0, "capacity": 2048, "prompts": 20},
    "batch": {
        "tasks": [{"task": "acme/sst2", "requests": 20}, {"task": None, "requests": 4}],
        "others": {"tasks": 3, "requests": 8},
        "last_prefill": {
            "kind": "generate", "requests": 8, "tasks": 3, "tokens": 310, "padded_tokens": 384,
            "padding": 0.193, "seconds_ago": 0.02,
        },
    },
    "queue": {
        "tenants": [{"tenant": "acme", "requests": 30, "work_units": 2100}],
        "others": {"tenants": 2, "requests": 11, "work_units": 800},
    },
    "prompts": {"resident": ["acme/sst2"], "waiting": []},
    "jobs": {
        "running": [
            {
                "id": "job-1", "kind": "tuning", "tenant": "acme", "created_at": NOW, "started_at": NOW,
                "attempt": 1,
            }
        ],
        "others": 2,
    },
    "compiles": {
        "programs": 24, "from_cache": 20, "seconds": 3.1, "by_cause": {"startup": 31},
        "last": [{"at": NOW, "program": "decode", "cause": "startup", "seconds": 0.4}],
    },
    "memory": {
        "uses": [{"use": "weights", "bytes": 1 << 20, "settings": "x"}], "total": 2 << 20, "limit": 8 << 20,
    },
    "store": {
        "trouble": None,
        "last_collection": {"at": NOW, "outcome": "collected", "blobs": 1, "freed_bytes": 60, "message": ""},
        "collection_due_at": NOW,
        "check": CHECK,
    },
    "lease_holders": [
        {"name": "host process 7", "leases": 1, "of": "jobs", "expires_at": NOW, "this": True}
    ],
}  # fmt: skip


def tick(number: int) -> dict[str, Any]:
    """Ten seconds of an hour in which as many requests are answered as there were ticks before."""
    ended = f"2026-01-01T{number // 360:02}:{number // 6 % 60:02}:{number % 6 * 10:02}Z"
    median, p99 = (0.2, 0.7) if number else (None, None)
    return {
        "ended": ended, "seconds": 10.0, "answered": number, "failed": 1, "cancelled": 0, "refused": 2,
        "tokens_in": 300, "tokens_out": 60, "queued": 4, "queued_units": 2900 + number, "slots_in_use": 24,
        "median_seconds": median, "p99_seconds": p99,
    }  # fmt: skip


def events(results: list[dict[str, Any]]) -> Iterator[bytes]:
    """The results as a stream: each text in two tokens."""
    for index, item in enumerate(results):
        if "error" in item:
            yield event("error", {"index": index, "error": item["error"]})
            continue
        half = len(item["text"]) // 2
        for text in (item["text"][:half], item["text"][half:]):
            yield event("token", {"index": index, "choice": 0, "text": text, "tokens": [1]})
        yield event("result", {"index": index, "result": item})
    yield event("done", {"id": "req_1"})


def event(name: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


ROUTES = (
    (r"/v1/generate", "generate"),
    (r"/v1/classify", "classify"),
    (r"/v1/ensemble", "ensemble"),
    (r"/v1/tasks", "list_tasks"),
    (r"/v1/tasks/([^/]+)", "task"),
    (r"/v1/tasks/([^/]+)/versions", "versions"),
    (r"/v1/tasks/([^/]+)/versions/(\d+)", "version"),
    (r"/v1/tasks/([^/]+)/versions/(\d+)/artifact", "artifact"),
    (r"/v1/tasks/([^/]+)/versions/(\d+)/neighbors", "neighbors"),
    (r"/v1/tasks/([^/]+)/aliases", "show_aliases"),
    (r"/v1/tasks/([^/]+)/aliases/([^/]+)", "alias"),
    (r"/v1/tasks/([^/]+)/rollback", "rollback"),
    (r"/v1/ensembles", "ensemble_list"),
    (r"/v1/ensembles/([^/]+)/versions", "ensemble_versions"),
    (r"/v1/ensembles/([^/]+)", "ensemble_one"),
    (r"/v1/model", "model"),
    (r"/v1/usage", "usage"),
    (r"/v1/me", "me"),
    (r"/v1/operations", "operations"),
    (r"/v1/store/check", "check_store"),
    (r"/readyz", "readyz"),
    (r"/healthz", "healthz"),
    (r"/metrics", "metrics"),
)


@contextmanager
def on_loopback(handler: Handler) -> Iterator[str]:
    """Serve `handler` on a real socket; yields the URL."""

    class Bridge(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            request = httpx2.Request(
                self.command,
                f"http://{self.headers['host']}{self.path}",
                headers=list(self.headers.items()),
                content=body,
            )
            response = handler(request)
            content = response.content
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding"):
                    self.send_header(name, value)
            if response.status_code != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        request_queue_size = 128  # the default, 5, resets some of twenty connections that come at once
        daemon_threads = True

    server = Listening(("127.0.0.1", 0), Bridge)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
