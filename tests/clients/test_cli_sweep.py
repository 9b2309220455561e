"""`chorus sweep` against the fake: what is sent, and what is shown of the plan, of trials and of versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from chorus.cli.sweep import space_of
from chorus.cli.sweep_tables import differing, knobs_text, plan_of, spread_text
from chorus.types import Job
from tests.clients.conftest import Run
from tests.clients.fake_chorus import FakeChorus
from tests.clients.fake_tuning import NOW, happened


def trial(number: int, rate: float, steps: int, mean: float | None, **more: Any) -> dict[str, Any]:
    metric = None if mean is None else {"mean": mean, "deviation": 0.05, "count": 2}
    return {
        "trial": number, "recipe": {"learning_rate": rate}, "steps": steps, "metric": metric, "seeds": [],
        "converged_step": None, "converged_seconds": None,
    } | more  # fmt: skip


def sent(fake: FakeChorus) -> Any:
    return [*fake.tuning.jobs.values()][-1]["spec"]


def add_job(fake: FakeChorus, status: str, result: Any = None, *trials: dict[str, Any]) -> str:
    """A job that is over, with `trial` events; its id."""
    identity = f"job-{len(fake.tuning.jobs):024x}"
    fake.tuning.jobs[identity] = {
        "id": identity, "status": status, "tasks": ["default/t"], "created_at": NOW, "created_by": "me",
        "started_at": NOW, "finished_at": NOW, "error": None, "progress": {}, "cancel_requested": False,
        "attempt": 1, "spec": {}, "result": result or {},
    }  # fmt: skip
    fake.tuning.events[identity] = [happened(n, "trial", each) for n, each in enumerate(trials, start=1)]
    return identity


def test_values_spans_and_points_of_a_knob() -> None:
    options = ["learning_rate=0.1,3", "initialiser=uniform,class_labels", "parameter_scaling=true,false",
               "weight_decay=1e-5..0.1", "prompt_length=5..20:4"]  # fmt: skip
    assert space_of(options) == {
        "learning_rate": [0.1, 3],
        "initialiser": ["uniform", "class_labels"],
        "parameter_scaling": [True, False],
        "weight_decay": {"low": 1e-5, "high": 0.1},
        "prompt_length": {"low": 5.0, "high": 20.0, "points": 4},
    }


@pytest.mark.parametrize("option", ["learning_rate", "a=1..", "a=x..2", "a=1..2:many", "a=1..2:"])
def test_a_space_of_another_form_is_refused(option: str) -> None:
    with pytest.raises(click.UsageError, match="--space"):
        space_of([option])


def test_a_sweep_is_a_tuning_job_with_what_varies(run: Run, fake: FakeChorus, train: str) -> None:
    result = run(
        "sweep", "t", train, "--label", "a", "--label", "b", "--seeds", "3", "--search", "random",
        "--space", "learning_rate=0.1..1", "--count", "4", "--publish", "2", "--recipe", "steps=9",
        "--detach", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sent(fake) == {
        "task": "t", "data": {"train": {"file": f"file-{0:024x}"}}, "labels": ["a", "b"], "seeds": 3,
        "sweep": {"search": "random", "space": {"learning_rate": {"low": 0.1, "high": 1.0}}, "count": 4,
                  "publish": 2},
        "recipe": {"steps": 9},
    }  # fmt: skip
    refused = run("sweep", "t", train)
    assert refused.exit_code == 2 and "give --space or --named" in refused.stderr


def test_options_override_a_documents_sweep_field_by_field(
    run: Run, fake: FakeChorus, train: str, tmp_path: Path
) -> None:
    document = tmp_path / "job.json"
    sweep = {"search": "halving", "named": "table6", "count": 27, "rungs": [{"steps": 3, "trials": 27}]}
    document.write_text(json.dumps({"task": "t", "data": {"train": "train.tsv"}, "sweep": sweep}))
    result = run("sweep", "--document", str(document), "--count", "9", "--detach", "--json")
    assert result.exit_code == 0, result.output
    assert sent(fake)["sweep"] == sweep | {"count": 9}


def test_options_of_a_search_beside_a_documents_trials_are_refused(
    run: Run, fake: FakeChorus, train: str, tmp_path: Path
) -> None:
    document = tmp_path / "job.json"
    sweep = {"search": "halving", "trials": [{"learning_rate": 0.1}, {"learning_rate": 1}]}
    document.write_text(json.dumps({"task": "t", "data": {"train": "train.tsv"}, "sweep": sweep}))
    words = ("sweep", "--document", str(document), "--detach", "--json")
    for option in (("--space", "learning_rate=3"), ("--named", "table6"), ("--count", "9")):
        refused = run(*words, *option)
        assert refused.exit_code == 2, refused.output
        assert f"leave out {option[0]}" in " ".join(refused.stderr.split())
    assert fake.seen == []
    assert run(*words, "--eta", "2").exit_code == 0, "control"
    assert sent(fake)["sweep"] == sweep | {"eta": 2}


def test_the_plan_counts_every_seed_of_every_trial() -> None:
    def job(**spec: Any) -> Job:
        prompts = [{"recipe": {"steps": 90}}]
        return Job.model_validate(
            {"id": "job-1", "status": "queued", "tasks": [], "created_at": NOW, "created_by": "me",
             "attempt": 0, "spec": {"prompts": prompts, **spec}}
        )  # fmt: skip

    assert plan_of(job()) is None
    assert plan_of(job(seeds=3)) == "1 trial, 3 prompts, at most 270 training steps in all"
    trials: list[dict[str, Any]] = [{"learning_rate": 0.1}, {"steps": 10}]
    assert plan_of(job(seeds=2, sweep={"trials": trials})) == (
        "2 trials, 4 prompts, at most 200 training steps in all"
    )
    rungs = [{"steps": 30, "trials": 3}, {"steps": 90, "trials": 1}]
    assert plan_of(job(sweep={"trials": [{}, {}, {}], "rungs": rungs})) == (
        "3 trials, 3 prompts, at most 150 training steps in all"
    )


def test_the_trials_of_a_sweep_are_a_table(run: Run, fake: FakeChorus) -> None:
    tested = {"metrics": {"test_mean": {"mean": 0.75, "deviation": None, "count": 1}}}
    done = add_job(fake, "succeeded", {"trials": [trial(1, 0.3, 90, 0.9, **tested), trial(0, 3, 90, None)]})
    lines = run("sweep", "show", done).stdout.strip().splitlines()
    assert " ".join(lines[0].split()) == "trial learning_rate steps metric test converged at seconds"
    assert lines[2].split()[:7] == ["1", "0.3", "90", "0.9", "±", "0.05", "0.75"]
    assert lines[3].split()[:3] == ["0", "3", "90"]
    assert json.loads(run("sweep", "show", done, "--json").stdout)["id"] == done


def test_a_sweep_without_a_result_shows_the_trials_that_it_told_of(run: Run, fake: FakeChorus) -> None:
    told = [trial(1, 0.3, 30, 0.8), trial(0, 0.1, 30, 0.7), trial(2, 1, 30, 0.2), trial(0, 0.1, 90, 0.6)]
    stopped = add_job(fake, "cancelled", None, *told)
    lines = run("sweep", "show", stopped).stdout.strip().splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [
        ["0", "0.1", "90"],
        ["1", "0.3", "30"],
        ["2", "1", "30"],
    ]
    none = run("sweep", "show", add_job(fake, "cancelled")).stdout
    assert "no trials yet" in none
    plain = run("sweep", "show", add_job(fake, "succeeded", {"prompts": []})).stdout
    assert "has no trials: it has neither seeds nor a sweep" in plain


def test_recipes_are_told_by_the_knobs_in_which_they_differ() -> None:
    recipes = [
        {"steps": 9, "learning_rate": 0.1, "micro_batch_size": 4},
        {},
        {"steps": 9, "learning_rate": 3, "initialiser_text": None, "loss_reduction": "sum"},
    ]
    told = ["learning_rate=0.1", "", "learning_rate=3 loss_reduction=sum"]
    assert [knobs_text(each) for each in differing(recipes)] == told
    assert spread_text({"mean": 0.5, "deviation": None}) == "0.5" and spread_text(None) is None
