"""Jobs from the store to versions, on the tiny model, with a real store and a device thread of their own."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.executor.testing import tiny_model
from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.order import _epoch
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.recipe import RELEASED
from chorus_server.tuning.jobs.attempts.config import TuningBase
from chorus_server.tuning.jobs.stages import validate
from chorus_server.tuning.training.beginning import began_from, first_values
from chorus_server.tuning.training.initialisers import InitialiserSource, initial_prompt
from chorus_server.tuning.training.loop import TuningLoop
from prompts_store.blobs.files import Files
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest, PromptVersion
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import (
    FINGERPRINT,
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
    until,
    upload,
)

pytestmark = pytest.mark.usefixtures("compile_cache")


def in_bf16() -> TuningBase:
    """The same base, with its matrices in bf16."""
    model = tiny_model(matrix_dtype="bfloat16")
    return base(functions=model.functions, params=model.params)


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore.open(tmp_path)


def test_a_job_becomes_a_version_that_says_where_it_came_from(store: PromptStore, tmp_path: Path) -> None:
    file = upload(store, jsonl())
    test = upload(store, jsonl(20, 9), "report.jsonl")
    data = {"train": {"file": file}, "test": {"file": test}, "validation_rows": 10}
    watcher = Watcher()
    job = done(store, tmp_path, document(file, data=data, description="Letters."), watcher=watcher)
    assert job.status == "succeeded", job.error
    (made,) = job.result["prompts"]
    version = store.resolve(made["reference"], tenant=TENANT)
    assert version.manifest.labels == ("n", "y") and version.manifest.digest == made["digest"]
    assert store.values(version.manifest.digest).shape == (5, base().width)
    assert set(version.metrics) == {
        "validation_accuracy", "validation_mean", "test_accuracy", "test_mean",
    }  # fmt: skip
    lineage = version.lineage
    assert lineage["base_model_name"] == base().functions.config.name != ""
    assert lineage["data"]["train"] == {
        "sha256": store.get_file(TENANT, file).sha256, "rows": 30, "source": {"file": file},
    }  # fmt: skip
    assert lineage["data"]["validation"]["from"] == "train" and lineage["data"]["test"]["rows"] == 20
    assert (lineage["chosen_on"], lineage["job"], lineage["seed"]) == ("cut from train", job.id, 3)
    assert made["chosen_on"] == "cut from train"
    assert lineage["recipe"]["micro_batch_size"] == 4 and len(lineage["curve"]["loss"]) == 6
    kinds = [kind for kind, _ in events(store, job)]
    order = ["program", "step", "evaluated", "published"]
    assert [kind for kind in dict.fromkeys(kinds) if kind in order] == order and "checkpointed" in kinds
    assert [data["status"] for kind, data in events(store, job) if kind == "status"] == [
        "queued", "preparing", "running", "succeeded",
    ]  # fmt: skip
    assert watcher.endings == ["succeeded"] and watcher.made == 6 and watcher.saved >= 1
    assert not list((tmp_path / "tuning").glob("*/job-*")), "nothing is left of a job that succeeded"
    assert store.aliases(TENANT, "letters") == {"live": 1}


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The values that prompts begin with, as they are made."""
    found: list[Any] = []

    def noted(*args: Any, **options: Any) -> Any:
        found.append(initial_prompt(*args, **options))
        return found[-1]

    monkeypatch.setattr(validate, "initial_prompt", noted)
    return found


def made_again(version: PromptVersion, existing: Any = None) -> Any:
    of = base()
    return first_values(version, lambda: InitialiserSource(of.vocabulary, of.embed, of.width), existing)


def test_seeds_make_an_ensemble_pinned_to_their_versions(
    store: PromptStore, tmp_path: Path, began: list[Any]
) -> None:
    """And the lineage of each is enough to make again what it began with."""
    sent = document(upload(store, jsonl()), ensemble=2, ensemble_name="two", promote=True)
    job = done(store, tmp_path, sent)
    assert job.status == "succeeded", job.error
    digests = [made["digest"] for made in job.result["prompts"]]
    assert len(set(digests)) == 2
    ensemble = store.resolve_ensemble("two", tenant=TENANT)
    assert [member.version for member in ensemble.members] == [1, 2]
    best = max(job.result["prompts"], key=lambda made: made["best_metric"])
    assert store.aliases(TENANT, "letters") == {"live": best["version"]}
    versions = [store.resolve(f"letters@{n}", tenant=TENANT) for n in (1, 2)]
    assert [version.lineage["index"] for version in versions] == [0, 1]
    for version, values in zip(versions, began, strict=True):
        np.testing.assert_array_equal(made_again(version), values)
        assert not np.array_equal(store.values(version.manifest.digest), values)
    for wrong in (
        {"source": "upload"},
        {"seed": "3"},
        {"index": None},
        {"recipe": None},
        {"recipe": {"x": 1}},
    ):
        assert made_again(replace(versions[0], lineage={**versions[0].lineage, **wrong})) is None


def test_a_choice_on_the_test_split_is_marked(store: PromptStore, tmp_path: Path) -> None:
    train, test = (upload(store, jsonl(size, 9), f"{size}.jsonl") for size in (30, 20))
    data = {"train": {"file": train}, "test": {"file": test}, "validation_from": "test"}
    sent = document(train, data=data, answer_by="greedy", ensemble=2, recipe={"defaults": "released"})
    job = done(store, tmp_path, sent)
    assert job.status == "succeeded", job.error
    assert [made["chosen_on"] for made in job.result["prompts"]] == ["test", "test"]
    version = store.resolve(job.result["prompts"][1]["reference"], tenant=TENANT)
    assert version.lineage["chosen_on"] == "test"
    assert {name: version.lineage["recipe"][name] for name in RELEASED} == RELEASED
    metrics = version.metrics
    assert metrics["test_accuracy"] == metrics["validation_accuracy"] and 0 <= metrics["test_legal"] <= 1
    assert 0 <= job.result["ensemble"]["metrics"]["test_legal"] <= 1


def test_a_member_alone_is_the_member_among_others(store: PromptStore, tmp_path: Path) -> None:
    file = upload(store, jsonl())
    together = done(store, tmp_path, document(file, ensemble=2))
    alone = done(store, tmp_path, document(file, index=1, task="alone"))
    values = [store.values(job.result["prompts"][-1]["digest"]) for job in (together, alone)]
    np.testing.assert_allclose(values[0], values[1], rtol=2e-4, atol=2e-4)
    other = store.values(together.result["prompts"][0]["digest"])
    assert not np.allclose(values[1], other, rtol=2e-4, atol=2e-4)


def test_two_tasks_train_in_one_job_each_with_its_own_data(store: PromptStore, tmp_path: Path) -> None:
    first, second = upload(store, jsonl(40, 1)), upload(store, jsonl(40, 2))
    sent = document(first, prompts=[
        {"task": "one", "recipe": {"learning_rate": 0.1}},
        {"task": "two", "data": {"train": {"file": second}, "validation_rows": 5}, "metrics": ["f1_macro"]},
    ])  # fmt: skip
    job = done(store, tmp_path, sent)
    assert job.status == "succeeded", job.error
    one, two = (store.resolve(name, tenant=TENANT) for name in ("one", "two"))
    assert one.lineage["recipe"]["learning_rate"] == 0.1 and two.lineage["recipe"]["learning_rate"] == 0.3
    assert one.lineage["data"]["train"]["sha256"] != two.lineage["data"]["train"]["sha256"]
    assert "validation_f1_macro" in two.metrics


def test_transfer_starts_from_the_version_that_was_meant_when_it_began(
    store: PromptStore, tmp_path: Path, began: list[Any]
) -> None:
    file = upload(store, jsonl())
    source = done(store, tmp_path, document(file, task="source"))
    job = done(store, tmp_path, document(file, task="target", initial_prompt="source"))
    assert job.status == "succeeded", job.error
    version = store.resolve("target", tenant=TENANT)
    assert began_from(version) == version.lineage["initial_prompt"] == f"{TENANT}/source@1"
    existing = store.values(source.result["prompts"][0]["digest"])
    np.testing.assert_array_equal(made_again(version, existing), began[1])
    assert made_again(version) is None, "the prompt that it began with is gone"
    assert job.progress["settled"]["initial_prompts"] == [f"{TENANT}/source@1"]
    assert source.result["prompts"][0]["digest"] != job.result["prompts"][0]["digest"]
    foreign = done(store, tmp_path, document(file, initial_prompt="other/source"))
    assert foreign.error is not None and foreign.error["code"] == "unknown_task"


def test_a_cancelled_job_keeps_its_state_and_resumed_ends_with_the_same_bits(
    store: PromptStore, tmp_path: Path
) -> None:
    file = upload(store, jsonl())
    steps = {"steps": 40, "evaluate_every_steps": 40, "checkpoint_every_steps": 1000}
    whole = done(store, tmp_path, document(file, task="whole", recipe=steps))
    watcher = Watcher(hold_after=21)
    with running(store, tmp_path, watcher=watcher) as service:
        job = submit(store, document(file, task="halves", recipe=steps))
        assert watcher.reached.wait(300)
        store.cancel_job(TENANT, job.id)
        let_go_once_stopped(service, watcher)
        cancelled = finished(store, job)
    assert cancelled.status == "cancelled" and cancelled.progress["checkpoint_step"] == 10
    assert store.stored_use(TENANT).training_steps == 50, "of both, what they did"
    store.resume_job(TENANT, job.id, training_steps=40)
    with running(store, tmp_path, watcher=watcher):
        over = finished(store, job)
    assert over.status == "succeeded" and watcher.endings == ["cancelled", "succeeded"]
    assert watcher.made == 40, "no step is made twice"
    assert store.stored_use(TENANT).training_steps == 80
    assert over.result["prompts"][0]["digest"] == whole.result["prompts"][0]["digest"]


def test_a_stopped_service_gives_its_job_back_and_the_next_ends_it(
    store: PromptStore, tmp_path: Path
) -> None:
    file, watcher = upload(store, jsonl()), Watcher(hold_after=7)
    job = submit(store, document(file, recipe={"checkpoint_every_steps": 1000}))
    with running(store, tmp_path, watcher=watcher) as service:
        assert watcher.reached.wait(300)
        stopping = threading.Thread(target=service.stop, args=(300,))
        stopping.start()
        let_go_once_stopped(service, watcher)
        stopping.join()
        queued = store.get_job(TENANT, job.id)
    assert queued.status == "queued" and queued.progress["checkpoint_step"] == 3
    with running(store, tmp_path, watcher=watcher):
        assert finished(store, job).status == "succeeded"
    assert watcher.endings == ["released", "succeeded"] and watcher.made == 6


def test_a_paused_job_stops_at_a_checkpoint_and_goes_on_when_resumed(
    store: PromptStore, tmp_path: Path
) -> None:
    file, watcher = upload(store, jsonl()), Watcher(hold_after=7)
    job = submit(store, document(file, recipe={"checkpoint_every_steps": 1000}))
    with running(store, tmp_path, watcher=watcher) as service:
        assert watcher.reached.wait(300)
        store.pause_job(TENANT, job.id)
        let_go_once_stopped(service, watcher)
        paused = until(store, job, lambda found: found.status == "queued")
        assert paused.paused and paused.progress["checkpoint_step"] == 3
        following = submit(store, document(file, task="next"))
        assert finished(store, following).status == "succeeded", "the control: what is not paused runs"
        assert store.get_job(TENANT, job.id) == paused
        store.resume_job(TENANT, job.id)
        assert finished(store, job).status == "succeeded"
    assert watcher.endings == ["released", "succeeded", "succeeded"] and watcher.made == 12


def huge(store: PromptStore) -> None:
    """A prompt whose values are finite, and whose gradient is not."""
    values = np.full((5, base().width), 3e38, np.float32)
    manifest = PromptManifest(prompt_digest(values), *values.shape, base_fingerprint=FINGERPRINT)
    store.publish(TENANT, "huge", values, manifest)


def test_a_loss_that_is_no_number_fails_the_job_and_says_what_to_change(
    store: PromptStore, tmp_path: Path
) -> None:
    huge(store)
    job = done(store, tmp_path, document(upload(store, jsonl()), initial_prompt="huge"))
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "diverged" and job.error["field"] == "recipe.learning_rate"
    for words in ("not a finite number", "learning_rate", "warmup_steps", "start a new one"):
        assert words in job.error["message"]
    assert list((tmp_path / "tuning").glob("*/job-*/run-*/job.json")), "the last good checkpoint is kept"
    assert [kind for kind, _ in events(store, job)].count("prompt_stopped") == 1


def test_of_several_prompts_the_good_ones_are_published(store: PromptStore, tmp_path: Path) -> None:
    huge(store)
    prompts = [{"task": "bad", "initial_prompt": "huge"}, {"task": "good"}]
    job = done(store, tmp_path, document(upload(store, jsonl()), prompts=prompts))
    assert job.status == "succeeded", job.error
    first, second = job.result["prompts"]
    assert first["status"] == "diverged" and "version" not in first and "learning_rate" in first["message"]
    assert second["reference"] == f"{TENANT}/good@1"


class FullDisk(Files):
    """No space for a checkpoint's bytes."""

    def write(self, descriptor: int, content: memoryview) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_fails_the_job_and_the_next_one_runs(store: PromptStore, tmp_path: Path) -> None:
    file, files = upload(store, jsonl()), FullDisk()
    with running(store, tmp_path, files=files):
        job = finished(store, submit(store, document(file)))
        assert job.status == "failed" and job.error is not None
        assert job.error["code"] == "disk_failed" and "No space left" in job.error["message"]
        files.write = Files().write  # type: ignore[method-assign]
        assert finished(store, submit(store, document(file, task="next"))).status == "succeeded"
        store.resume_job(TENANT, job.id)
        assert finished(store, job).status == "succeeded"


def test_what_a_failed_job_held_is_freed_without_the_collector(store: PromptStore, tmp_path: Path) -> None:
    """It hardly ever looks at what is no longer new, and a job's programs take tens of megabytes."""

    def loops() -> set[int]:
        return {id(each) for each in gc.get_objects() if isinstance(each, TuningLoop)}

    file = upload(store, jsonl())
    gc.collect()
    before = loops()
    gc.disable()
    try:
        with running(store, tmp_path, files=FullDisk()):
            assert finished(store, submit(store, document(file))).status == "failed"
        assert loops() <= before
    finally:
        gc.enable()


def test_a_job_that_does_not_fit_is_refused_with_what_would(store: PromptStore, tmp_path: Path) -> None:
    file, small = upload(store, jsonl()), base(memory_room=900_000)
    job = done(store, tmp_path, document(file, ensemble=5), of_base=small)
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "memory_plan" and "would fit" in job.error["message"]
    recipe = {"prompt_length": 12, "max_input_tokens": 40}
    big = done(store, tmp_path, document(file, recipe=recipe), of_base=base(max_prompt_rows=10))
    assert big.error is not None and big.error["field"] == "recipe.prompt_length"


def test_a_job_that_ends_its_process_each_time_is_given_up(store: PromptStore, tmp_path: Path) -> None:
    job = submit(store, document(upload(store, jsonl())))
    claimed = store.claim_job("tuning", "dead", 60, JobDocument.from_json(job.spec).base_fingerprint or "")
    assert claimed is not None
    store.update_job(claimed[1], progress={"begun_at_step": 0, "runs_without_progress": 5})
    store.release_job(claimed[1])
    with running(store, tmp_path):
        over = finished(store, job)
        assert over.status == "failed" and over.error is not None and over.error["code"] == "gave_up"
        store.resume_job(TENANT, job.id)
        assert finished(store, job).status == "succeeded"


def test_a_job_for_another_base_is_left_alone(store: PromptStore, tmp_path: Path) -> None:
    file = upload(store, jsonl())
    spec = JobDocument.from_json(document(file)).for_base("b" * 64)
    other = store.create_job(TENANT, "tuning", spec.to_json(), files={"data.train.file": file})
    mine = submit(store, document(file))
    with running(store, tmp_path):
        assert finished(store, mine).status == "succeeded"
    assert store.get_job(TENANT, other.id).status == "queued"


def test_a_job_goes_on_with_matrices_of_the_type_that_it_was_begun_with(
    store: PromptStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or its bits would be nobody's. A process with another type says why it leaves the job, and takes the
    next one."""
    file, watcher = upload(store, jsonl()), Watcher(hold_after=7)
    begun = submit(store, document(file, recipe={"checkpoint_every_steps": 1000}))
    with running(store, tmp_path, watcher=watcher) as service:
        assert watcher.reached.wait(300)
        stopping = threading.Thread(target=service.stop, args=(300,))
        stopping.start()
        let_go_once_stopped(service, watcher)
        stopping.join()
    left = store.get_job(TENANT, begun.id)
    assert left.status == "queued" and left.progress["settled"]["matrix_dtype"] == "float32"
    bf16, next_one = in_bf16(), submit(store, document(file, task="next"))
    with running(store, tmp_path, of_base=bf16):
        ended = finished(store, next_one)
        until(store, begun, lambda _: "waits for another process" in caplog.text)
    assert ended.status == "succeeded" and ended.progress["settled"]["matrix_dtype"] == "bfloat16"
    assert store.get_version(TENANT, "next", 1).lineage["matrix_dtype"] == "bfloat16"
    assert f"{begun.id} waits for another process: it was begun with matrices in float32" in caplog.text
    assert "`chorus worker --matrix-dtype f32` goes on with it" in caplog.text
    assert store.get_job(TENANT, begun.id) == left
    with running(store, tmp_path):
        assert finished(store, begun).status == "succeeded"
    assert store.get_version(TENANT, "letters", 1).lineage["matrix_dtype"] == "float32"


def test_a_lost_store_is_waited_for(tmp_path: Path) -> None:
    """Every call fails for a while after the job has begun; then it goes on as if nothing had been."""
    real = PromptStore.open(tmp_path)
    whole = done(real, tmp_path, document(upload(real, jsonl()), task="whole"))
    store = Flaky(real)
    file = upload(real, jsonl())
    watcher = Watcher()
    job = submit(real, document(file, task="flaky"))
    with running(store, tmp_path, watcher=watcher):  # type: ignore[arg-type]
        until(real, job, lambda found: found.status != "queued")
        store.away.set()
        assert store.failed.wait(300)
        store.away.clear()
        over = finished(real, job)
    assert over.status == "succeeded" and watcher.endings == ["succeeded"]
    assert over.result["prompts"][0]["digest"] == whole.result["prompts"][0]["digest"]


class Flaky:
    """A store that does not answer while `away` is set."""

    def __init__(self, store: PromptStore) -> None:
        self._store = store
        self.away = threading.Event()
        self.failed = threading.Event()

    def __getattr__(self, name: str) -> Any:
        from prompts_store.errors import StoreError

        method = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.away.is_set():
                self.failed.set()
                raise StoreError("The database does not answer.")
            return method(*arguments, **named)

        return call


def test_a_defect_beside_a_job_does_not_end_the_taking_of_jobs(store: PromptStore, tmp_path: Path) -> None:
    """Such as a standard error that is closed: without the guard, jobs would wait for ever in silence."""
    file, watcher = upload(store, jsonl()), Watcher()
    broken = iter([True])

    def once() -> None:
        if next(broken, False):
            raise BrokenPipeError

    watcher.after(watcher.runs, once)
    first = submit(store, document(file))
    with running(store, tmp_path, watcher=watcher, lease_seconds=1.0):
        second = submit(store, document(file, task="second"))
        assert finished(store, second).status == "succeeded"
        assert finished(store, first).status == "succeeded", "its lease ran out"
    assert _epoch.cache_info().currsize == 0, "no order of a job that is over is held"


def test_specs_that_no_reader_takes_are_refused_before_a_job_exists() -> None:
    with pytest.raises(InvalidInputError):
        JobDocument.from_json({"task": "x"})
