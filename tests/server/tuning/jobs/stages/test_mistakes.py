"""What new versions get wrong is a data file of the tenant, and nowhere else."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from prompts_store.tenants.limits import StoredAmounts, TenantLimits
from prompts_store.testing import file_bytes
from tests.server.tuning.jobs.service_tools import TENANT, document, done, events, jsonl, upload
from tests.server.tuning.tuning_tools import LABELS

pytestmark = pytest.mark.usefixtures("compile_cache")


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore.open(tmp_path)


def mistakes_of(store: PromptStore, job: Job) -> list[dict[str, Any]]:
    content = file_bytes(store, TENANT, job.result["mistakes"])
    return [json.loads(line) for line in content.splitlines()]


def test_each_version_has_its_confusion_and_the_rows_that_it_finds_hardest(
    store: PromptStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = jsonl()
    file = upload(store, rows)
    prompts = [{"task": "a"}, {"task": "b", "answer_by": "greedy"}]
    job = done(store, tmp_path, document(file, prompts=prompts))
    assert job.status == "succeeded", job.error
    ranked, greedy = mistakes_of(store, job)
    texts = [json.loads(line) for line in rows.splitlines()]
    for found, made in zip((ranked, greedy), job.result["prompts"], strict=True):
        assert (found["reference"], found["split"]) == (made["reference"], "validation")
        counts, labels = found["confusion"]["counts"], found["confusion"]["labels"]
        assert labels == list(LABELS) and sum(map(sum, counts)) == found["rows"] >= 10
        right = sum(row[place] for place, row in enumerate(counts))
        assert right / found["rows"] == pytest.approx(made["metrics"]["validation_accuracy"], abs=1e-6)
        for each in found["hardest"]:
            row = texts[each["row"] - 1]
            assert (each["text"].replace(" ", ""), each["answer"]) == (row["text"], row["label"])
    losses = [each["loss"] for each in ranked["hardest"]]
    assert losses == sorted(losses, reverse=True) and len(losses) == min(20, ranked["rows"])
    assert all(each["loss"] is None and each["said"] != each["answer"] for each in greedy["hardest"])
    told = json.dumps([*events(store, job), job.result, job.progress]) + caplog.text
    assert not any(row["text"] in told for row in texts)
    assert any(row["text"] in rows for row in texts)  # the control: they are found where they are
    assert store.get_file(TENANT, job.result["mistakes"]).name == f"{job.id}-mistakes.jsonl"


def test_of_a_search_the_best_has_them(store: PromptStore, tmp_path: Path) -> None:
    job = done(store, tmp_path, document(upload(store, jsonl()), seeds=2))
    assert job.status == "succeeded", job.error
    (found,) = mistakes_of(store, job)
    assert [found["reference"]] == [
        made["reference"] for made in job.result["prompts"] if "reference" in made
    ]


def test_a_tenant_that_may_keep_no_more_gets_its_version_all_the_same(
    store: PromptStore, tmp_path: Path
) -> None:
    content = jsonl()
    store.create_tenant(TENANT, limits=TenantLimits(stored=StoredAmounts(file_bytes=len(content))))
    job = done(store, tmp_path, document(upload(store, content)))
    assert job.status == "succeeded", job.error
    assert job.result["mistakes"] is None and "reference" in job.result["prompts"][0]
    (warning,) = [
        data["message"]
        for kind, data in events(store, job)
        if kind == "warning" and "get wrong" in data["message"]
    ]
    assert "is not kept" in warning
