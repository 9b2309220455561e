"""A real server whose log is JSON: each line an object, requests with what they asked, never content."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.served import TINY, Served
from tests.end_to_end.test_serve_tiny import push

pytestmark = pytest.mark.usefixtures("compiled_quickly")
CANARY = "zzcanaryzz"


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, compile_cache: Path
) -> Iterator[tuple[list[str], str]]:
    """The log of a server that answered and refused, at the most talkative level; and what it answered."""
    options = {"model": tiny_model, "compile_cache_dir": compile_cache, **TINY}
    options |= {"log_format": "json", "log_level": "debug"}
    with Served(tmp_path_factory.mktemp("data"), **options) as server:
        server.wait_ready()
        push(server, "sst2", rows=2, seed=1, label=["yes", CANARY])
        named = {"headers": {"X-Request-Id": "asked-one"}}
        body: dict[str, Any] = {"task": "sst2", "input": f"{CANARY} good film", "max_new_tokens": 8}
        answer = server.http.post("/v1/generate", json=body, **named)
        made = answer.json()["results"][0]["text"]
        asked = [{"task": task, "input": CANARY} for task in ("sst2", None)]
        several = {"json": {"requests": asked}, "headers": {"X-Request-Id": "asked-several"}}
        assert server.http.post("/v1/generate", **several).status_code == 200
        server.post("/v1/classify", {"task": "sst2", "input": CANARY})
        for wrong in ({"task": CANARY, "input": "x"}, {"task": "sst2", "input": [CANARY]}, {CANARY: 1}):
            assert server.http.post("/v1/generate", json=wrong).status_code in (400, 404)
        assert server.http.post("/v1/generate", content=f'{{"{CANARY}').status_code == 400
        assert server.http.get(f"/v1/{CANARY}?{CANARY}").status_code == 404
        assert server.stop(signal.SIGTERM) == 0
    yield server.lines, made


def test_every_line_is_an_object(ended: tuple[list[str], str]) -> None:
    lines = [json.loads(line) for line in ended[0]]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    messages = "\n".join(line["message"] for line in lines)
    for words in ("listening on", "memory plan", "ready at", "SIGTERM: draining"):
        assert words in messages


def test_a_request_is_told_with_what_it_asked(ended: tuple[list[str], str]) -> None:
    lines = {line.get("request_id"): line for line in map(json.loads, ended[0])}
    one = lines["asked-one"]
    assert {name: one[name] for name in ("tenant", "task", "version", "route", "status", "method")} == {
        "tenant": "default",
        "task": "default/sst2",
        "version": 1,
        "route": "/v1/generate",
        "status": 200,
        "method": "POST",
    }
    assert one["seconds"] > 0
    assert lines["asked-several"]["task"] == "several" and "version" not in lines["asked-several"]


def test_no_line_has_anything_of_the_content(ended: tuple[list[str], str]) -> None:
    lines, made = ended
    assert len(made) > 4 and "/v1/generate" in "\n".join(lines)  # the control: what is there is found
    assert not [line for line in lines if CANARY in line or json.dumps(made)[1:-1] in line]


def test_an_error_that_ends_the_start_is_an_object(tmp_path: Path) -> None:
    options = {"http_host": "no host", "model": tmp_path / "none"}
    ends = []
    for log_format in ("json", "text"):  # the control is the text, which is for people
        with Served(tmp_path / log_format, log_format=log_format, **options) as server:
            assert server.process.wait(300) == 1
            server._reader.join(60)
        ends.append(server.lines[-1])
    assert json.loads(ends[0])["level"] == "error"
    assert ends[1].startswith("Error: ")
