"""No body keeps the event loop from everybody else, whatever is in it and whichever route it is sent to."""

from __future__ import annotations

import gc
import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from fastapi.routing import APIRoute

from chorus_server.api.door import routing
from chorus_server.api.http import json_body
from chorus_server.api.inference import answers, turns
from chorus_server.api.routes.asgi import ROUTERS
from chorus_server.api.schemas.common import MAX_ROWS
from chorus_server.api.schemas.openai.asking import OpenAIBody
from chorus_server.api.schemas.openai.lenient import LenientBody, fates
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.validation import RequestModel
from tests.server.api.api_harness import ApiServer
from tests.server.api.http.hostile_bodies import (
    FORM,
    SIZE,
    form,
    forms,
    json_bodies,
    many,
    queries,
    schemas,
    values,
)
from tests.server.api.http.loop_watch import LoopWatch

LIMIT_SECONDS = 0.05
"""Of CPU time, in one callback."""

JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}

GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/generate"): {"task": None, "input": "good", "max_new_tokens": 1},
    ("POST", "/v1/classify"): {"task": None, "input": "good", "labels": ["good", "bad"]},
    ("POST", "/v1/ensemble"): {"tasks": ["a"], "input": "good"},
    ("POST", "/v1/ensembles/{name}/versions"): {"tasks": ["a"]},
    ("PUT", "/v1/ensembles/{name}/aliases/{alias}"): {"version": 1},
    ("POST", "/v1/ensembles/{name}/rollback"): {"alias": "live"},
    ("POST", "/v1/decisions"): {
        "model": "a",
        "input": "good",
        "questions": [
            {"type": "choice", "instructions": "?", "choices": [{"value": "good"}, {"value": "bad"}]}
        ],
    },
    ("POST", "/v1/completions"): {"model": "a", "prompt": "good", "max_tokens": 1},
    ("POST", "/v1/chat/completions"): {
        "model": "a",
        "messages": [{"role": "user", "content": "good"}],
        "max_tokens": 1,
    },
    ("POST", "/v1/responses"): {"model": "a", "input": "good", "max_output_tokens": 1},
    ("POST", "/v1/embeddings"): {"model": "a", "input": "good"},
    ("POST", "/v1/systemone"): {
        "model": "a",
        "state": "good",
        "questions": {"q": {"type": "choice", "criteria": {"good": None, "bad": None}}},
    },
    ("POST", "/v1/packs/{name}/versions"): {"questions": {"q": {"task": "a"}}},
    ("PUT", "/v1/packs/{name}/aliases/{alias}"): {"version": 1},
    ("POST", "/v1/packs/{name}/rollback"): {"alias": "live"},
    ("PUT", "/v1/packs/{name}/grants/{grantee}"): {"rights": ["infer"]},
    ("PUT", "/v1/tasks/{task}/aliases/{alias}"): {"version": 1},
    ("POST", "/v1/tasks/{task}/rollback"): {"alias": "live"},
    ("POST", "/v1/tenants"): {"name": "nobody"},
    ("PATCH", "/v1/tenants/{tenant}"): {"weight": 2.0},
    ("POST", "/v1/keys"): {"name": "No Name", "scopes": ["infer"]},
    ("PATCH", "/v1/keys/{key}"): {"limits": {"per_minute": {"requests": 1}}},
    ("PUT", "/v1/tasks/{task}/grants/{grantee}"): {"rights": ["infer"]},
    ("PUT", "/v1/ensembles/{name}/grants/{grantee}"): {"rights": ["infer"]},
    ("POST", "/v1/tasks/{task}/versions/{n}/calibrations"): {"file": "file-0"},
    ("POST", "/v1/tuning/jobs"): {"task": "a", "data": {"train": {"file": "file-0"}}},
    ("POST", "/v1/fine_tuning/jobs"): {"model": "base", "training_file": "file-0"},
    ("POST", "/v1/evaluations"): {"subjects": [{"task": "a"}], "file": "file-0"},
    ("POST", "/v1/batches"): {"file": "file-0", "endpoint": "/v1/classify"},
    ("POST", "/openai/v1/batches"): {"input_file_id": "file-0", "endpoint": "/v1/classify"},
}
"""Routes with a JSON body, and one that they take or refuse for what is in it."""

RAW = {
    ("POST", "/v1/tasks/{task}/versions"),
    ("POST", "/v1/files"),
    ("POST", "/openai/v1/files"),
}
"""Routes that take files and forms."""


def routes() -> list[APIRoute]:
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def path_of(template: str) -> str:
    for name, value in (("{n}", "1"), ("{task}", "a"), ("{alias}", "live"), ("{name}", "x")):
        template = template.replace(name, value)
    for name, value in (
        ("{model:path}", "a"),
        ("{file}", "file-0"),
        ("{job}", "job-0"),
        ("{calibration}", "1"),
        ("{evaluation}", "job-0"),
        ("{batch}", "job-0"),
        ("{calibration_job}", "job-0"),
        ("{key}", "key-0"),
        ("{tenant}", "nobody"),
        ("{grantee}", "acme"),
    ):
        template = template.replace(name, value)
    return template


def looked_at(model: type[RequestModel]) -> list[str]:
    """The fields of a body. What OpenAI's bodies share is read as in `/v1/generate`, and one field stands for
    all that nobody looks into."""
    if not issubclass(model, LenientBody):
        return list(model.model_fields)
    known = OpenAIBody.model_fields
    honoured = [name for name, fate, _ in fates(model) if fate == "honoured" and name not in known]
    return [*honoured, "user"]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("busy"), vocabulary) as server:
        with LoopWatch(server.thread) as watch:
            server.push("a", labels=["good", "bad"])
        assert not watch.longer_than(LIMIT_SECONDS), watch.worst  # the first request no more than others
        yield server
        assert server.engine.wait_idle(300)


@pytest.fixture(autouse=True)
def frozen() -> None:
    """As the process does before it is ready: what is alive by then costs no collection anything."""
    gc.collect()
    gc.freeze()


class Caller:
    """Sends bodies to one server and notes what its loop did meanwhile. What kept it a little too long is
    sent again: a busy machine adds to some callbacks, a bad body to all."""

    def __init__(self, api: ApiServer, watch: LoopWatch) -> None:
        self._api = api
        self._watch = watch
        self.connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=300)
        self.statuses: dict[str, int] = {}

    def send(self, name: str, method: str, path: str, body: bytes = b"", headers: Any = None) -> bytes:
        self._watch.doing = name = f"{method} {path[:60]}: {name}"
        for _ in range(3):
            self._watch.worst.pop(name, None)
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            content = answer.read()
            self.statuses[name] = answer.status
            self.connection.request("GET", "/healthz")  # answered when the last callback has ended
            self.connection.getresponse().read()
            little_too_long = self._watch.longer_than(LIMIT_SECONDS).keys() - self._watch.longer_than(
                4 * LIMIT_SECONDS
            )
            if name not in little_too_long:
                break
        return content


@contextmanager
def calling(api: ApiServer) -> Iterator[tuple[Caller, LoopWatch]]:
    with LoopWatch(api.thread) as watch:
        caller = Caller(api, watch)
        with closing(caller.connection):
            caller.send("warm", "GET", "/v1/model")
            yield caller, watch


def test_no_body_keeps_the_event_loop(busy: ApiServer) -> None:
    with calling(busy) as (caller, watch):
        seen = set()
        for route in routes():
            for method in route.methods:
                seen.add((method, route.path))
                path = path_of(route.path)
                if route.body_field is not None:
                    model = routing.BodyType(route.body_field.field_info.annotation).model
                    for name, body in json_bodies(looked_at(model), GOOD[method, route.path]):
                        caller.send(name, method, path, body, JSON)
                elif (method, route.path) in RAW:
                    for name, body in forms().items():
                        caller.send(name, method, path, body, FORM)
                    for name, body in values().items():
                        caller.send(f"metadata: {name}", method, path, form(body), FORM)
                        caller.send(name, method, path, body, BYTES)
                else:
                    caller.send("zeros", method, path, values()["zeros"], JSON)
                for name, query in queries().items():
                    caller.send(f"query: {name}", method, f"{path}?{query}")
    assert seen >= GOOD.keys() | RAW
    assert not watch.longer_than(LIMIT_SECONDS), watch.longer_than(LIMIT_SECONDS)
    failed = {name: status for name, status in caller.statuses.items() if status >= 500}
    assert not failed


def test_nor_does_a_body_that_is_checked_where_it_arrives(busy: ApiServer) -> None:
    with calling(busy) as (caller, watch):
        good = GOOD["POST", "/v1/generate"]
        for name, body in json_bodies(("inputs", "requests"), good, routing.SHORT_BYTES - 200):
            assert len(body) <= routing.SHORT_BYTES
            caller.send(name, "POST", "/v1/generate", body, JSON)
    assert not watch.longer_than(LIMIT_SECONDS), watch.longer_than(LIMIT_SECONDS)


def test_what_many_items_ask_for_is_done_in_turns(busy: ApiServer) -> None:
    with calling(busy) as (caller, watch):
        for name, (path, document) in many(MAX_ROWS).items():
            caller.send(name, "POST", path, json.dumps(document).encode(), JSON)
    assert not watch.longer_than(LIMIT_SECONDS), watch.longer_than(LIMIT_SECONDS)
    assert set(caller.statuses.values()) == {200, 404}


def test_no_schema_keeps_it(busy: ApiServer) -> None:
    with calling(busy) as (caller, watch):
        chat = GOOD["POST", "/v1/chat/completions"]
        for name, schema in schemas().items():
            format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            body = json.dumps({**chat, "response_format": format}).encode()
            said = json.loads(caller.send(name, "POST", "/v1/chat/completions", body, JSON))["error"]
            assert said["param"] == "response_format.json_schema.schema", said
    assert not watch.longer_than(LIMIT_SECONDS), watch.longer_than(LIMIT_SECONDS)
    assert set(caller.statuses.values()) == {200, 400}


def test_the_control_parses_on_the_event_loop(busy: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "SHORT_BYTES", 1 << 30)
    monkeypatch.setattr(json_body, "check_counts", lambda *_: None)
    body = b'{"task":null,"inputs":' + values(5 * SIZE)["objects"] + b"}"
    with calling(busy) as (caller, watch):
        caller.send("objects", "POST", "/v1/generate", body, JSON)
    assert watch.longer_than(LIMIT_SECONDS)


def test_the_control_takes_no_turns(busy: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 100)
    monkeypatch.setattr(answers, "_PIECE_BYTES", 1 << 30)
    path, document = many(MAX_ROWS)["labels"]
    with calling(busy) as (caller, watch):
        caller.send("labels", "POST", path, json.dumps(document).encode(), JSON)
    assert watch.longer_than(LIMIT_SECONDS)
