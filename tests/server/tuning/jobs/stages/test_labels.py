"""Which answers become labels by themselves, and what the rest of the job makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.jobs.stages.labels import labels_among
from chorus_server.tuning.jobs.stages.validate import Validated, validate
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import (
    FINGERPRINT,
    RECIPE,
    TENANT,
    attempt,
    document,
    done,
    events,
    jsonl,
    upload,
)


def _rows(*answers: str) -> list[TextRow]:
    return [TextRow(number, "text", (answer,)) for number, answer in enumerate(answers, 1)]


def _unlabelled(file: str, **changes: Any) -> dict[str, Any]:
    return {**document(file, **changes), "labels": None, "labels_from_data": True}


def _validated(store: PromptStore, folder: Path, sent: dict[str, Any]) -> Validated:
    return validate(attempt(store, folder), JobDocument.from_json(sent).for_base(FINGERPRINT))


def test_few_answers_that_come_often_are_labels() -> None:
    assert labels_among(_rows(*10 * ["b"], *10 * ["a"])) == ("a", "b")
    assert labels_among(_rows(*18 * ["b"], *2 * ["a"])) == ("a", "b")
    assert labels_among(_rows(*19 * ["b"], "a")) == (), "each at least twice"
    assert labels_among(_rows(*10 * ["b"], *9 * ["a"])) == (), "two in 19 rows are more than a tenth"
    assert labels_among(_rows(*20 * ["a"])) == (), "one is nothing to tell apart"
    twenty = [chr(97 + n) for n in range(20)]
    assert labels_among(_rows(*10 * twenty)) == tuple(twenty)
    assert labels_among(_rows(*20 * [*twenty, "u"])) == (), "21 are too many"
    assert labels_among([*_rows(*30 * ["a", "b"]), TextRow(9, "text", ("a", "b"))]) == (), "several accepted"


def test_a_job_makes_them_its_version_s_labels(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    job = done(store, tmp_path, _unlabelled(upload(store, jsonl()), recipe={"steps": 3}))
    assert (job.status, job.spec["prompts"][0]["labels"]) == ("succeeded", [])
    assert job.spec["prompts"][0]["metrics"] == [], "known once the data was read"
    version = store.get_version(TENANT, "letters", 1)
    assert version.manifest.labels == ("n", "y")
    assert "validation_accuracy" in version.metrics
    assert ("labels", {"prompt": 0, "labels": ["n", "y"]}) in events(store, job)


def test_labels_from_data_train_as_named_ones_do(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    file = upload(store, jsonl())
    named = _validated(store, tmp_path, document(file, ensemble=2))
    found = _validated(store, tmp_path, _unlabelled(file, ensemble=2))
    assert found.run(4).digest == named.run(4).digest
    assert [member.labels for member in found.document.members] == 2 * [("n", "y")]


def test_free_text_stays_free_text(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    rows = "".join(json.dumps({"text": 4 * chr(97 + n), "label": chr(97 + n)}) + "\n" for n in range(24))
    validated = _validated(store, tmp_path, _unlabelled(upload(store, rows)))
    (task,) = validated.tasks
    assert (task.labels, task.metrics, task.recipe.initialiser) == (
        (),
        ("exact_match",),
        "sampled_vocabulary",
    )
    assert not any("labels" in warning for warning in validated.warnings)


@pytest.mark.parametrize("answer, why", [("z", "another split"), ("n", None)])
def test_other_splits_must_have_the_same_answers(tmp_path: Path, answer: str, why: str | None) -> None:
    store = PromptStore.open(tmp_path)
    other = upload(store, json.dumps({"text": "abcd", "label": answer}) + "\n")
    data = {"train": {"file": upload(store, jsonl())}, "validation": {"file": other}}
    validated = _validated(store, tmp_path, _unlabelled("", data=data))
    assert validated.tasks[0].labels == (() if why else ("n", "y"))
    said = [warning for warning in validated.warnings if "did not become labels" in warning]
    assert [why in warning for warning in said if why] == ([True] if why else [])


def test_labels_too_long_to_rank_stay_free_text(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    rows = "".join(json.dumps({"text": "abcd", "label": 10 * "ab"[n % 2]}) + "\n" for n in range(24))
    sent = _unlabelled(upload(store, rows), recipe={**RECIPE, "max_target_tokens": 12})
    validated = _validated(store, tmp_path, sent)
    assert validated.tasks[0].labels == ()
    assert any("one has 11 tokens with </s>, and this server ranks 8" in each for each in validated.warnings)


def test_named_labels_and_labels_from_data_contradict_each_other() -> None:
    with pytest.raises(InvalidInputError) as refused:
        JobDocument.from_json({**document("file-1"), "labels_from_data": True})
    assert refused.value.field == "labels_from_data"
