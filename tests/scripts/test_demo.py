"""The README's first command, after its environment is made: a real server on the base that ships."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.embedded import embedded_folder
from tests.places import ROOT
from tether import tethered

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, compiled_folder: Path, few_shapes: dict[str, str]) -> str:
    """What the demo printed; its exit code was 0."""
    done = subprocess.run(
        tethered([sys.executable, ROOT / "scripts" / "mixed_batch.py", "--once"]),
        env={
            **os.environ, "JAX_PLATFORMS": "cpu", "CHORUS_DEMO_DIR": str(tmp_path_factory.mktemp("demo")),
            "CHORUS_COMPILE_CACHE_DIR": str(compiled_folder), "COLUMNS": "400",
            **{f"CHORUS_{name.upper()}": shapes for name, shapes in few_shapes.items()},
        },
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_task_is_answered_in_one_batch_with_one_of_its_labels(said: str) -> None:
    folder = embedded_folder()
    assert folder is not None
    tasks = json.loads((folder / "demo.json").read_text())["tasks"]
    assert len(tasks) >= 5 and f"One batch, {len(tasks)} tasks" in said
    for task in tasks:
        rows = [line for line in said.splitlines() if re.match(rf"\W*{task['task']}\b", line)]
        assert rows, task["task"]
        assert any(f'"{label}"' in rows[0] for label in task["labels"]), rows[0]


def test_prompts_vote_and_the_next_thing_is_told(said: str) -> None:
    vote = re.search(r"A vote of (\d+) prompts of (\w+): '(\w+)', agreement (\d\.\d\d)", said)
    assert vote is not None, said
    assert int(vote[1]) >= 3 and vote[3] in ("negative", "positive") and 0.5 < float(vote[4]) <= 1
    assert "curl -s http://127.0.0.1:" in said and "chorus serve --model" in said
