"""The first minute: `chorus serve` alone, then `chorus generate sentiment "a joyless mess"`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.embedded import embedded_folder
from tests.end_to_end.served import CHORUS, Served

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def ask(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    return subprocess.run(
        [CHORUS, *words],
        env=env | {"CHORUS_URL": url},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_a_server_alone_answers_the_tasks_that_ship(
    tmp_path: Path, compile_cache: Path, few_shapes: dict[str, str]
) -> None:
    folder = embedded_folder()
    assert folder is not None
    shipped: list[dict[str, Any]] = json.loads((folder / "demo.json").read_text())["tasks"]
    names = [task["task"] for task in shipped]
    with Served(tmp_path / "data", compile_cache_dir=compile_cache, log_level="info", **few_shapes) as server:
        server.wait_ready()
        url = str(server.http.base_url)
        answer = ask(url, "generate", "sentiment", "a joyless mess")
        assert (answer.returncode, answer.stdout) == (0, "negative\n"), answer.stderr
        listed = server.http.get("/v1/tasks").json()["tasks"]
        assert {each["task"]: each["aliases"] for each in listed} == {
            f"default/{task['task']}": {"live": task["live"]} for task in shipped
        }
        body = {"task": "demo/sentiment", "input": "a joyless mess"}
        assert server.http.post("/v1/generate", json=body).status_code == 404, "control: where they were"
        said = [line for line in server.lines if "registered" in line]
    assert len(said) == 1 and said[0].endswith(
        f"registered {len(names)} tasks under the tenant default: {', '.join(names)}"
    )
