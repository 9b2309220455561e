"""Every job of a labelled task fits what makes its probabilities mean what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_server.calibration.fitting import fit
from chorus_server.tuning.training.evaluation import Evaluator
from prompts_store.records import LEAST_TEMPERATURE, MOST_TEMPERATURE
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import TENANT, document, done, events, jsonl, upload

pytestmark = pytest.mark.usefixtures("compile_cache")


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore.open(tmp_path)


def test_each_prompt_of_a_job_has_its_own_calibration(
    store: PromptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[list[list[float]]]] = []
    score = Evaluator.score

    def noted(self: Evaluator, prompts: object, splits: object, found: list[list[list[float]]]) -> object:
        seen.append(found)
        return score(self, prompts, splits, found)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "score", noted)
    file = upload(store, jsonl(100))
    data = {"train": {"file": file}, "validation_rows": 60}
    job = done(store, tmp_path, document(file, data=data, ensemble=2))
    assert job.status == "succeeded", job.error
    versions = [store.resolve(made["reference"], tenant=TENANT) for made in job.result["prompts"]]
    for place, version in enumerate(versions):
        made = version.calibration
        assert made is not None
        fitted = made.fitted
        assert (made.number, fitted.labels, fitted.matrix_dtype) == (1, ("n", "y"), "float32")
        assert LEAST_TEMPERATURE <= fitted.temperature <= MOST_TEMPERATURE
        assert fitted.rows >= 60 and fitted.source == {"job": job.id, "split": "validation"}
        # What was scored is what was measured, and the fit is of that.
        raw = fitted.measures["raw"]
        assert raw["accuracy"] == pytest.approx(version.metrics["validation_accuracy"], abs=1e-6)
        assert [len(row) for row in seen[0][place]] == [2] * fitted.rows
        said = job.result["prompts"][place]["calibration"]
        assert (said["calibration"], said["temperature"]) == (1, fitted.temperature)
        assert said["ece_raw"] == raw["ece"]
    first, second = (version.calibration for version in versions)
    assert first is not None and second is not None and first.fitted != second.fitted
    published = [data for kind, data in events(store, job) if kind == "published" and "version" in data]
    assert [each["calibration"]["calibration"] for each in published] == [1, 1]
    assert fit(seen[0][0], [0] * len(seen[0][0])).temperature > 0


def test_too_few_rows_are_told_and_do_not_keep_the_version(store: PromptStore, tmp_path: Path) -> None:
    job = done(store, tmp_path, document(upload(store, jsonl())))
    assert job.status == "succeeded", job.error
    (made,) = job.result["prompts"]
    assert made["calibration"] is None
    assert store.resolve(made["reference"], tenant=TENANT).calibration is None
    (warning,) = [
        data["message"]
        for kind, data in events(store, job)
        if kind == "warning" and "calibrat" in data["message"]
    ]
    assert "10 validation rows" in warning and "50 or more" in warning


def test_labels_that_are_answered_by_greedy_text_are_left_out(store: PromptStore, tmp_path: Path) -> None:
    file = upload(store, jsonl(100))
    data = {"train": {"file": file}, "validation_rows": 60}
    prompts = [{"task": "a", "answer_by": "greedy"}, {"task": "b"}]
    job = done(store, tmp_path, document(file, data=data, prompts=prompts))
    assert job.status == "succeeded", job.error
    greedy, ranked = (store.resolve(made["reference"], tenant=TENANT) for made in job.result["prompts"])
    assert greedy.calibration is None and ranked.calibration is not None
    warnings = [data["message"] for kind, data in events(store, job) if kind == "warning"]
    assert ["prompt 0" in each and "greedy" in each for each in warnings if "calibrat" in each] == [True]
