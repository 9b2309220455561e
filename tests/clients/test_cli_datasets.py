"""`chorus datasets`: what is printed, and what a prepared folder has."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from chorus.cli import root
from tests.places import FIXTURES

OFFICIAL = FIXTURES / "datasets" / "official"


def run(*words: str) -> Result:
    return CliRunner().invoke(root.chorus, ["datasets", *words])


def test_rows_labels_and_what_to_do_next_are_printed(tmp_path: Path) -> None:
    folder = tmp_path / "boolq"
    result = run("prepare", "superglue/boolq", str(OFFICIAL / "superglue"), str(folder), "--task", "yes-no")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    for expected in (["train", "3", "3"], ["True", "2", "66.7%"], ["False", "1", "33.3%"], ["dev", "1", "1"]):
        assert expected in lines
    assert f"chorus tune --document {folder}/job.json" in result.stdout
    assert (
        f"chorus evaluate yes-no majority base base:calibrated {folder}/dev.jsonl "
        f"--document {folder}/evaluation.json --examples {folder}/train.jsonl" in result.stdout
    )
    assert json.loads((folder / "job.json").read_text())["task"] == "yes-no"


def test_what_cannot_be_asked_is_not_shown(tmp_path: Path) -> None:
    result = run("prepare", "mrqa", str(OFFICIAL / "mrqa"), str(tmp_path / "mrqa"), "--task", "squad")
    shown = (
        f"chorus evaluate squad base {tmp_path}/mrqa/BioASQ.jsonl --document {tmp_path}/mrqa/evaluation.json"
    )
    assert result.stdout.splitlines()[-1].endswith(shown), "no train split, and no labels"


def test_json_has_the_same(tmp_path: Path) -> None:
    result = run("prepare", "superglue/wsc", str(OFFICIAL / "superglue"), str(tmp_path / "wsc"), "--json")
    assert json.loads(result.stdout)["splits"]["train"] == {
        "rows": 4,
        "examples": 3,
        "labels": {"False": 1, "True": 3},
    }


def test_what_can_be_prepared_is_listed() -> None:
    assert "https://gluebenchmark.com/tasks" in run("list").stdout
    listed = json.loads(run("list", "--json").stdout)["datasets"]
    assert len(listed) == 19 and listed[0]["files"] == ["train.jsonl", "val.jsonl"]


def test_an_error_is_a_sentence(tmp_path: Path) -> None:
    result = run("prepare", "glue/sst2", str(tmp_path), str(tmp_path / "made"))
    assert result.exit_code == 2
    assert "has no train.tsv" in result.stderr and "gluebenchmark.com" in result.stderr
