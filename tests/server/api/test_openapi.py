"""The OpenAPI document: checked in, and every example in it works when pasted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from api_harness import ApiServer

from server.api.asgi import ROUTERS
from server.api.schemas import examples
from server.reference import PAGES

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())


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
    assert len(with_body) == 7


@pytest.mark.parametrize(("method", "path", "example"), posted())
def test_every_example_works_when_pasted(
    stocked: ApiServer, files: dict[str, str], method: str, path: str, example: dict[str, Any]
) -> None:
    text = json.dumps(example)
    for named, real in files.items():
        text = text.replace(named, real)
    if path.endswith("/rollback"):
        stocked.push("sst2", seed=50)
        stocked.http.put("/v1/tasks/sst2/aliases/live", json={"version": 2})
    url = path.replace("{task}", "sst2").replace("{alias}", "canary").replace("{name}", "panel")
    answer = stocked.http.request(method, url, json=json.loads(text))
    assert answer.status_code in (200, 201), answer.text
    assert str(answer.status_code) in DOCUMENT["paths"][path][method]["responses"]
    if example.get("stream"):
        assert answer.text.rstrip().split("\n\n")[-1].startswith("event: done")


def test_the_document_that_is_served_is_the_one_checked_in(api: ApiServer) -> None:
    assert api.http.get("/openapi.json").json() == DOCUMENT
    assert "swagger" in api.http.get("/docs").text


@pytest.mark.parametrize("name", sorted(PAGES))
def test_what_is_checked_in_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), (
        f"run python -m server.reference and commit docs/{name}"
    )


def test_every_route_is_in_the_reference_for_people() -> None:
    page = (DOCS / "rest.md").read_text()
    for router in ROUTERS:
        for route in router.routes:
            path = str(getattr(route, "path", ""))
            tail = path.replace("{version}", "{n}")
            assert tail in page, f"docs/rest.md does not mention {path}"
