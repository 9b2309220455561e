"""`chorus tune` against `chorus serve` on a tiny random T5: from a file to prompts that answer and vote."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.served import CHORUS, Served

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROWS = [("a good film", 1), ("the sun was good", 1), ("a bad dog", 0), ("it was bad rain", 0)]
PAIRS = ("--target-text", "0=no", "--target-text", "1=yes", "--label", "no", "--label", "yes")
RECIPE = {
    "prompt_length": 4,
    "steps": 6,
    "batch_size": 4,
    "evaluate_every_steps": 3,
    "max_input_tokens": 32,
    "checkpoint_every_steps": 3,
}


def chorus(served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, its output not a terminal."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    env |= {"CHORUS_URL": str(served.http.base_url), "PYTHONUTF8": "1"}
    return subprocess.run(
        [str(CHORUS), *words], env=env, capture_output=True, text=True, encoding="utf-8", timeout=1200
    )


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "train.tsv"
    lines = [f"{text} {n}\t{label}" for n in range(10) for text, label in ROWS]
    file.write_text("\n".join(["sentence\tmood", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tuned(served: Served, train: Path) -> list[dict[str, Any]]:
    """What following a job as JSON Lines gave."""
    recipe = [word for name, value in RECIPE.items() for word in ("--recipe", f"{name}={value}")]
    ran = chorus(served, "tune", "mood", str(train), "--template", "{sentence}", "--target", "mood",
                 *PAIRS, *recipe, "--ensemble", "2", "--report", str(train), "--json")  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_whole_way_is_told(tuned: list[dict[str, Any]]) -> None:
    statuses = [line["data"]["status"] for line in tuned if line["event"] == "status"]
    assert statuses == ["queued", "preparing", "running", "succeeded"]
    numbers = [line["seq"] for line in tuned[:-1]]
    assert numbers == list(range(1, len(tuned)))
    kinds = {line["event"] for line in tuned}
    assert {"program", "step", "evaluated", "checkpointed", "published", "done"} <= kinds
    last = [line["data"] for line in tuned if line["event"] == "step"][-1]
    assert (last["step"], last["steps"], len(last["losses"])) == (6, 6, 2)
    splits = {line["data"]["split"] for line in tuned if line["event"] == "evaluated"}
    assert splits == {"selection", "report"}


def test_the_prompts_answer_and_vote(served: Served, tuned: list[dict[str, Any]]) -> None:
    result = tuned[-1]["job"]["result"]
    references = [prompt["reference"] for prompt in result["prompts"]]
    assert len(set(references)) == 2
    assert result["ensemble"]["members"] == references
    for reference in references:
        answer = served.post("/v1/classify", {"task": reference, "input": "a good film"})
        assert answer["results"][0]["label"] in ("no", "yes")
    vote = chorus(served, "ensemble", "vote", "mood-ensemble", "a good film", "--json")
    assert len(json.loads(vote.stdout)["results"][0]["members"]) == 2
    assert served.metric("chorus_compiles_total", cause="request") == 0


def test_what_was_done_can_be_looked_at(served: Served, tuned: list[dict[str, Any]]) -> None:
    job = tuned[-1]["job"]["id"]
    assert "default/mood@1" in chorus(served, "tune", "show", job).stdout
    plain = chorus(served, "tune", "follow", job)
    assert plain.returncode == 0
    assert "step 6 of 6" in plain.stdout or "step 3" in plain.stdout
    assert "published the ensemble default/mood-ensemble@1 of 2" in plain.stdout
    assert chorus(served, "files", "list").stdout.count("train.tsv") == 2


def test_a_bad_row_fails_the_job_with_its_number(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "bad.tsv"
    file.write_text("text\tlabel\na good film\tyes\na bad dog\tperhaps\n")
    ran = chorus(served, "tune", "bad", str(file), "--label", "no", "--label", "yes",
                 "--recipe", "prompt_length=4", "--recipe", "max_input_tokens=32")  # fmt: skip
    assert ran.returncode == 1
    assert "unknown_label" in ran.stderr and "row 2" in ran.stderr
    assert "perhaps" in ran.stderr
    answer = served.http.get("/v1/tasks/bad")
    assert answer.status_code == 404
