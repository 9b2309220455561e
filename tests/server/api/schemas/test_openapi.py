"""The OpenAPI document: checked in, and every example in it works when pasted."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chorus_server.api.routes import asgi
from chorus_server.api.routes.asgi import ROUTERS
from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.events import GENERATE_EVENTS, JOB_EVENTS
from chorus_server.api.schemas.tuning import JobEventAnswer
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.reference import GENERATED, ROOT
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import ApiServer

DOCS = ROOT / "docs"
DOCUMENT: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())


OPERATOR = "an-operator-of-tests-0123456789"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """With a key, since the examples make one, and then a server asks for one."""
    ring = KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("data"), vocabulary, keys=ring) as server:
        server.http.headers["authorization"] = f"Bearer {OPERATOR}"
        yield server
        assert server.engine.wait_idle(300)


@pytest.fixture(scope="module")
def stocked(api: ApiServer) -> ApiServer:
    for seed, (task, carried) in enumerate(examples.TASKS.items()):
        metadata = {name: value for name, value in carried.items() if name != "settings"}
        if "settings" in carried:
            metadata["settings"] = json.dumps(carried["settings"])
        api.push(task, seed=seed, **metadata)
    return api


@pytest.fixture(scope="module")
def files(api: ApiServer) -> dict[str, str]:
    """Real ids of the files that the examples name."""
    ids = {}
    for named, text in examples.FILES.items():
        answer = api.http.post(
            "/v1/files",
            params={"name": "train.tsv"},
            content=text.encode(),
            headers={"content-type": "application/octet-stream"},
        )
        ids[named] = answer.json()["id"]
    return ids


def posted() -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            schema = content["schema"]
            for candidate in (schema, *schema.get("anyOf", [])):
                if "$ref" in candidate:
                    name = candidate["$ref"].rsplit("/", 1)[1]
                    component = DOCUMENT["components"]["schemas"][name]
                    found += [(method, path, example) for example in component.get("examples", [])]
    return found


def test_every_json_body_has_an_example() -> None:
    with_body = {
        (method, path)
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert with_body == {(method, path) for method, path, _ in posted()}
    assert len(with_body) == 29


@pytest.mark.parametrize(("method", "path", "example"), posted())
def test_every_example_works_when_pasted(
    stocked: ApiServer, files: dict[str, str], method: str, path: str, example: dict[str, Any]
) -> None:
    text = json.dumps(example)
    for named, real in files.items():
        text = text.replace(named, real)
    if path.endswith("/rollback"):
        stocked.push("sst2", seed=50, labels=["negative", "positive"])
        stocked.http.put("/v1/tasks/sst2/aliases/live", json={"version": 2})
    url = (
        path.replace("{task}", "sst2")
        .replace("{alias}", "canary")
        .replace("{name}", "panel")
        .replace("{grantee}", "acme")
    )
    url = url.replace("{tenant}", "default").replace("{n}", "1")
    if path.startswith("/v1/ensembles/{name}/") and not path.endswith("/versions"):
        for weight in (1, 2):
            panel = {"tasks": ["sst2"], "weights": [weight]}
            stocked.http.post("/v1/ensembles/panel/versions", json=panel)
        stocked.http.put("/v1/ensembles/panel/aliases/live", json={"version": 2})
    if path.startswith("/v1/packs/{name}/") and not path.endswith("/versions"):
        for policy in ("base", "refuse"):
            pack = {"questions": {"mood": {"task": "sst2"}}, "unknown_questions": policy}
            stocked.http.post("/v1/packs/panel/versions", json=pack)
        stocked.http.put("/v1/packs/panel/aliases/live", json={"version": 2})
    if "{key}" in url:
        key, _ = stocked.store.create_key("default", f"of-{method}-{len(text)}", scopes=["infer"])
        url = url.replace("{key}", key.id)
    answer = stocked.http.request(method, url, json=json.loads(text))
    assert answer.status_code in (200, 201), answer.text
    assert str(answer.status_code) in DOCUMENT["paths"][path][method]["responses"]
    if example.get("stream"):
        assert answer.text.rstrip().split("\n\n")[-1].startswith("event: done")


def test_the_document_that_is_served_is_the_one_checked_in(api: ApiServer) -> None:
    assert api.http.get("/openapi.json").json() == DOCUMENT
    assert "swagger" in api.http.get("/docs").text


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_what_is_checked_in_is_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text() == GENERATED[name](), (
        f"run python -m chorus_server.reference and commit {name}"
    )


def referred(value: Any) -> set[str]:
    """Every `$ref` in a part of the document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(referred, value.values()))
    return set().union(*map(referred, value)) if isinstance(value, list) else set()


def test_every_schema_that_is_named_is_there() -> None:
    assert {name.rsplit("/", 1)[1] for name in referred(DOCUMENT)} <= set(DOCUMENT["components"]["schemas"])


MODELS: dict[str, type[AnswerModel]] = {
    model.__name__: model for model in (*GENERATE_EVENTS.values(), *JOB_EVENTS.values(), JobEventAnswer)
}


def check_events(path: str, method: str, text: str) -> set[str]:
    """The names of a stream's events, after checking each against the document."""
    content = DOCUMENT["paths"][path][method]["responses"]["200"]["content"]["text/event-stream"]
    described = [event["properties"] for event in content["itemSchema"]["anyOf"]]
    names = set()
    for block in text.strip().split("\n\n"):
        event = dict(line.split(": ", 1) for line in block.splitlines())
        named = [each for each in described if each["event"].get("const") == event["event"]]
        assert named or "const" not in described[0]["event"], event
        properties = (named or described)[0]
        assert set(event) <= set(properties)
        MODELS[properties["data"]["contentSchema"]["$ref"].rsplit("/", 1)[1]].model_validate_json(
            event["data"]
        )
        names.add(event["event"])
    return names


def test_streams_send_what_the_document_describes(stocked: ApiServer, files: dict[str, str]) -> None:
    body = {"task": "sst2", "inputs": ["good", "bad"], "max_new_tokens": 4, "stream": True}
    text = stocked.post("/v1/generate", body).text
    assert check_events("/v1/generate", "post", text) == {"token", "result", "done"}
    broken = text.replace('"index"', '"place"')
    with pytest.raises(ValidationError):  # the control
        check_events("/v1/generate", "post", broken)

    job = json.loads(json.dumps(examples.TUNING_JOB[0]).replace(*next(iter(files.items()))))
    made = stocked.post("/v1/tuning/jobs", job).json()["id"]
    stocked.http.post(f"/v1/tuning/jobs/{made}/cancel")
    path = "/v1/tuning/jobs/{job}/events"
    followed = stocked.http.get(path.replace("{job}", made)).text
    assert check_events(path, "get", followed) == {"status", "done"}


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/generate", "post"), ("/v1/tuning/jobs/{job}/events", "get")]
)
def test_the_example_of_a_stream_is_one(path: str, method: str) -> None:
    content = DOCUMENT["paths"][path][method]["responses"]["200"]["content"]["text/event-stream"]
    assert "done" in check_events(path, method, content["example"])
    for name in referred(content["itemSchema"]):
        assert name.rsplit("/", 1)[1] in content["schema"]["description"]


def test_the_routes_of_every_file_are_served() -> None:
    folder = Path(asgi.__file__).parent
    served = {Path(inspect.getfile(route.endpoint)) for router in ROUTERS for route in router.routes}
    assert served == set(folder.glob("*.py")) - {folder / "__init__.py", folder / "asgi.py"}


def test_every_route_is_in_the_reference_for_people() -> None:
    page = (DOCS / "rest.md").read_text()
    for router in ROUTERS:
        for route in router.routes:
            path = str(getattr(route, "path", ""))
            tail = path.replace("{version}", "{n}").replace(":path", "")
            assert tail in page, f"docs/rest.md does not mention {path}"
