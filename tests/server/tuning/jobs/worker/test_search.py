"""Searches on the tiny model: what trains together, what is chosen, what goes on from where it was."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server.tuning.document.job import JobDocument
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import (
    TENANT,
    Watcher,
    base,
    document,
    done,
    events,
    finished,
    jsonl,
    let_go_once_stopped,
    running,
    submit,
    upload,
)
from tests.server.tuning.jobs.worker.test_service import huge

pytestmark = pytest.mark.usefixtures("compiled_quickly", "compile_cache")
# Few shapes, since each is compiled: two prompts or one, of 4 examples a dispatch or 8.
RATES = {"learning_rate": [1e-9, 3.0]}
RECIPE = {"steps": 8, "evaluate_every_steps": 2}
ROOM, HELD = 1_000_000, 16


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore.open(tmp_path)


@pytest.fixture
def data(store: PromptStore) -> dict[str, Any]:
    test = upload(store, jsonl(20, 9), "test.jsonl")
    return {
        "train": {"file": upload(store, jsonl())},
        "test": {"file": test},
        "validation": {"file": upload(store, jsonl(30, 5), "validation.jsonl")},
    }


def _done(store: PromptStore, folder: Path, data: Mapping[str, Any], **more: Any) -> Job:
    changes = {name: more.pop(name) for name in ("watcher", "of_base") if name in more}
    recipe = RECIPE | more.pop("recipe", {})
    job = done(store, folder, document("", data=dict(data), recipe=recipe, **more), **changes)
    assert job.status == "succeeded", job.error
    return job


def _values(store: PromptStore, job: Job) -> Any:
    (made,) = [each for each in job.result["prompts"] if "digest" in each]
    return store.values(made["digest"])


def _lineage(store: PromptStore, job: Job) -> Mapping[str, Any]:
    (made,) = [each for each in job.result["prompts"] if "digest" in each]
    versions = {each.number: each for each in store.list_versions(TENANT, "letters").items}
    return versions[made["version"]].lineage


def _trials(job: Job) -> dict[int, Mapping[str, Any]]:
    return {trial["trial"]: trial for trial in job.result["trials"]}


def test_seeds_have_mean_and_deviation_and_the_best_becomes_a_version(
    store: PromptStore, tmp_path: Path, data: dict[str, Any]
) -> None:
    job = _done(store, tmp_path, data, seeds=2)
    (trial,) = job.result["trials"]
    bests = [seed["best_metric"] for seed in trial["seeds"]]
    assert trial["metric"] == {
        "mean": pytest.approx(np.mean(bests), abs=1e-6),
        "deviation": pytest.approx(np.std(bests, ddof=1), abs=1e-6),
        "count": 2,
    }
    tested = [prompt["metrics"]["test_accuracy"] for prompt in job.result["prompts"]]
    assert trial["metrics"]["test_accuracy"]["mean"] == pytest.approx(np.mean(tested), abs=1e-6)
    (made,) = [prompt for prompt in job.result["prompts"] if "version" in prompt]
    assert made["best_metric"] == max(bests) and made["index"] == bests.index(max(bests))
    (version,) = store.list_versions(TENANT, "letters").items
    assert version.lineage["job"] == job.id and version.lineage["index"] == made["index"]
    assert version.lineage["trial"]["metric"] == trial["metric"]
    assert trial["converged_seconds"]["mean"] > 0
    # A seed is the same prompt as that of another job with that index; another seed is not.
    prompts = [{"index": made["index"]}, {"index": 1 - made["index"]}]
    found = _done(store, tmp_path, data, prompts=prompts).result["prompts"]
    same, other = (store.values(each["digest"]) for each in found)
    np.testing.assert_allclose(_values(store, job), same, rtol=2e-3, atol=2e-4)
    assert not np.allclose(_values(store, job), other, rtol=2e-3, atol=2e-4)


def test_trials_of_one_shape_share_their_steps_and_others_follow(
    store: PromptStore, tmp_path: Path, data: dict[str, Any]
) -> None:
    space = {"learning_rate": [1.0, 1e-9], "micro_batch_size": [4, 8]}
    together, apart = Watcher(), Watcher()
    sweep = {"space": space, "publish": 3}
    job = _done(store, tmp_path, data, sweep=sweep, watcher=together)
    assert together.made == 2 * 8, "two shapes, each once"
    assert sorted(_trials(job)) == list(range(4))
    assert job.progress["training_steps"] == 4 * 8 == JobDocument.from_json(job.spec).training_steps
    means = [trial["metric"]["mean"] for trial in job.result["trials"]]
    assert means == sorted(means, reverse=True)
    # The best becomes the latest version, and the live one, although another was the first of the task.
    versions = {each.number: each for each in store.list_versions(TENANT, "letters").items}
    best = job.result["trials"][0]
    assert len(versions) == 3 and versions[3].lineage["trial"]["trial"] == best["trial"]
    assert versions[3].lineage["recipe"]["learning_rate"] == best["recipe"]["learning_rate"]
    assert store.aliases(TENANT, "letters") == {"live": 3} and job.result["prompts"][0]["version"] == 3
    measured = [trial["trial"] for trial in job.result["trials"] if "test_accuracy" in trial["metrics"]]
    assert len(measured) == 3, "nothing but what is chosen is measured on test"
    # One after another they come to the same, within rounding.
    sweep = {"space": {"learning_rate": [1.0, 1e-9]}, "publish": 0, "together": 1}
    alone = _done(store, tmp_path, data, sweep=sweep, watcher=apart)
    assert apart.made == 2 * 8 and len(store.list_versions(TENANT, "letters").items) == 3
    first = {tuple(trial["recipe"].values()): trial["metric"]["mean"] for trial in job.result["trials"]}
    for trial in alone.result["trials"]:
        mean = first[trial["recipe"]["learning_rate"], 4]
        assert trial["metric"]["mean"] == pytest.approx(mean, abs=0.04)  # a row of 30


def test_halving_goes_on_with_the_best_from_where_they_were(
    store: PromptStore, tmp_path: Path, data: dict[str, Any]
) -> None:
    watcher = Watcher()
    sweep = {"search": "halving", "eta": 2, "space": RATES}
    job = _done(store, tmp_path, data, recipe={"steps": 16}, sweep=sweep, watcher=watcher)
    assert watcher.made == 16, "8 steps of two, then 8 of one: nobody begins anew"
    assert job.progress["training_steps"] == 8 * 2 + 8 == JobDocument.from_json(job.spec).training_steps
    kept, left, last = [data for kind, data in events(store, job) if kind == "trial"]
    assert [each["steps"] for each in (kept, left, last)] == [8, 8, 16]
    assert kept["kept"] and not left["kept"] and "kept" not in last
    assert kept["trial"] == last["trial"] == 1 and kept["metric"]["mean"] > left["metric"]["mean"]
    assert [trial["steps"] for trial in job.result["trials"]] == [16, 8]
    assert [trial["seeds"][0]["status"] for trial in job.result["trials"]] == ["finished", "left_behind"]
    # The winner is what it would have been alone: within rounding, since its batches had other shapes.
    best = job.result["trials"][0]
    alone = _done(store, tmp_path, data, recipe=best["recipe"] | {"steps": 16})
    assert alone.result["prompts"][0]["best_step"] == best["seeds"][0]["best_step"]
    np.testing.assert_allclose(_values(store, job), _values(store, alone), rtol=2e-3, atol=2e-4)
    curve, same = (np.array(_lineage(store, each)["curve"]["loss"]) for each in (job, alone))
    np.testing.assert_allclose(curve, same, rtol=2e-3, atol=2e-4)
    assert not np.allclose(curve[8:], curve[:8], rtol=0.1), "the control: it did not begin anew"


def test_prompts_that_do_not_fit_together_train_apart(
    store: PromptStore, tmp_path: Path, data: dict[str, Any]
) -> None:
    """And what fitted together before that stays as it is, in the next attempt too."""
    first, second = Watcher(hold_after=HELD), Watcher()
    narrow = replace(base(), memory_room=ROOM)
    sweep = {"space": {"micro_batch_size": [4, 8], **RATES}, "publish": 0}
    sent = document("", data=data, recipe=RECIPE | {"steps": 2}, sweep=sweep)
    job = submit(store, sent)
    with running(store, tmp_path, watcher=first, of_base=narrow) as service:
        assert first.reached.wait(300)
        threading.Thread(target=let_go_once_stopped, args=(service, first)).start()
    assert 2 < first.made < 6, "in one of the second shape"
    with running(store, tmp_path, watcher=second, of_base=narrow):
        job = finished(store, job)
    assert job.status == "succeeded", job.error
    warnings = [data["message"] for kind, data in events(store, job) if kind == "warning"]
    assert sum("2 prompts do not train together" in each for each in warnings) == 1, warnings
    assert first.made + second.made == 2 + 2 * 2, "two of the first shape together, of the second apart"
    assert sorted(_trials(job)) == [0, 1, 2, 3]


def test_a_search_of_which_every_trial_diverges_fails_and_says_what_to_change(
    store: PromptStore, tmp_path: Path, data: dict[str, Any]
) -> None:
    huge(store)
    sweep = {"space": {"learning_rate": [0.1, 0.3]}}
    sent = document("", data=data, sweep=sweep, initial_prompt="huge", recipe=RECIPE)
    job = done(store, tmp_path, sent)
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "diverged" and "learning_rate" in job.error["message"]
    assert [task.name for task in store.list_tasks(TENANT).items] == ["huge"]
    assert {seed["status"] for trial in job.result["trials"] for seed in trial["seeds"]} == {"diverged"}
