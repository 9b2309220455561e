"""The plan of benchmarks/tuning can be run as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tuning import quality, results
from benchmarks.tuning.prompts import recipes_of
from benchmarks.tuning.quality import KINDS, next_run
from benchmarks.tuning.tasks import TASKS

PLAN = Path(quality.__file__).parent / "plan.json"
RUNS: list[dict[str, Any]] = json.loads(PLAN.read_text())["runs"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])
def test_every_run_is_of_a_known_kind_and_task(run: dict[str, Any]) -> None:
    assert run["kind"] in KINDS
    assert run.get("task", "sst2") in TASKS
    if run["kind"] == "prompts":
        assert all(recipe.steps >= 60 for recipe in recipes_of(run, TASKS[run["task"]]))


def test_no_name_is_there_twice_and_sources_run_before_what_needs_them() -> None:
    names = [run["name"] for run in RUNS]
    assert len(set(names)) == len(names)
    for place, run in enumerate(RUNS):
        needed = run.get("sources", [run["source"]] if "source" in run else [])
        assert set(needed) <= set(names[:place])


def test_what_is_done_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "PARTS", tmp_path)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"runs": [{"name": "a-1"}, {"name": "a-2"}, {"name": "b-1"}]}))
    assert next_run(plan, [""]) == {"name": "a-1"}
    results.save(tmp_path / "a-1", "result.json", {"report": []})
    assert next_run(plan, [""]) == {"name": "a-2"}
    assert next_run(plan, ["b"]) == {"name": "b-1"}
    results.save(tmp_path / "b-1", "result.json", {"report": []})
    assert next_run(plan, ["b"]) is None
