"""`selection` and `report`, earlier names of the splits: read where sent or stored, never answered."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server.api.records import version_json
from chorus_server.api.tuning.records import event_json, job_json
from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.job import JobDocument
from prompts_store.digests import canonical_json, prompt_digest
from prompts_store.jobs.records import JobEvent
from prompts_store.records import PromptManifest, PromptVersion
from prompts_store.store import PromptStore
from tests.server.tuning.jobs import service_tools
from tests.server.tuning.jobs.service_tools import FINGERPRINT, TENANT, Watcher, jsonl, running, upload

TRAIN, OTHER = {"file": "file-a"}, {"file": "file-b"}


def as_before(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A completed document in the form in which 0.1.0 stored it."""
    before: dict[str, Any] = json.loads(json.dumps(spec))
    for prompt in before["prompts"]:
        data = prompt["data"]
        data |= {"selection": data.pop("validation"), "report": data.pop("test")}
        data |= {"selection_rows": data.pop("validation_rows"), "selection_from": data.pop("validation_from")}
    return before


def document(**data: Any) -> dict[str, Any]:
    return {"task": "sst2", "data": {"train": TRAIN, **data}, "labels": ["no", "yes"]}


@pytest.mark.parametrize(
    ("earlier", "today"),
    [
        ({"selection": OTHER, "report": OTHER}, {"validation": OTHER, "test": OTHER}),
        ({"selection_rows": 0}, {"validation_rows": 0}),
        ({"report": OTHER, "selection_from": "report"}, {"test": OTHER, "validation_from": "test"}),
        ({"test": OTHER, "validation_from": "report"}, {"test": OTHER, "validation_from": "test"}),
        ({"selection": OTHER, "validation": None, "report": None}, {"validation": OTHER}),
    ],
)
def test_a_document_may_use_the_earlier_names(earlier: dict[str, Any], today: dict[str, Any]) -> None:
    sent, expected = JobDocument.from_json(document(**earlier)), JobDocument.from_json(document(**today))
    assert sent == expected and sent.to_json() == expected.to_json()
    assert "selection" not in str(sent.to_json()) and "report" not in str(sent.to_json())


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"selection": OTHER, "validation": OTHER}, "data.validation"),
        ({"report": OTHER, "test": OTHER}, "data.test"),
        ({"selection_rows": 1, "validation_rows": 1}, "data.validation_rows"),
        ({"report": OTHER, "selection_from": "report", "validation_from": "test"}, "data.validation_from"),
    ],
)
def test_both_names_of_a_field_are_refused(data: dict[str, Any], field: str) -> None:
    for sent, path in ((document(**data), field), ({"prompts": [document(**data)]}, f"prompts.0.{field}")):
        with pytest.raises(InvalidInputError, match="is the earlier name of") as caught:
            JobDocument.from_json(sent)
        assert (caught.value.code, caught.value.field) == ("invalid_input", path)


def test_no_schema_shows_the_earlier_names() -> None:
    schema = json.dumps(JobDocument.model_json_schema())
    assert "validation_from" in schema
    assert "selection" not in schema and '"report"' not in schema


def test_a_job_stored_before_is_answered_in_the_new_names(tmp_path: Path) -> None:
    spec = JobDocument.from_json(document(validation=OTHER, test=OTHER)).to_json()
    spec["prompts"][0]["columns"] = {"selection": "report"}  # a user's own words
    last = {"split": "report", "step": 4, "accuracy": 0.5, "mean": 0.5}
    metrics = {"selection_accuracy": 0.75, "report_accuracy": 0.5}
    store = PromptStore.open(tmp_path)
    job = store.create_job(TENANT, "tuning", as_before(spec) | {"base_fingerprint": FINGERPRINT})
    claimed = store.claim_job("tuning", "a runner", 60, FINGERPRINT)
    assert claimed is not None
    store.update_job(claimed[1], progress={"phase": "done", "metrics": {"0": last}})
    result = {"prompts": [{"task": "sst2", "metrics": metrics}], "ensemble": None}
    store.finish_job(claimed[1], "succeeded", result=result)
    told = job_json(store.get_job(TENANT, job.id))
    store.close()
    assert told["spec"] == spec | {"base_fingerprint": FINGERPRINT}
    assert told["progress"]["metrics"] == {"0": {**last, "split": "test"}}
    found = {"validation_accuracy": 0.75, "test_accuracy": 0.5}
    assert told["result"]["prompts"][0]["metrics"] == found
    now = datetime.now(UTC)
    event = JobEvent(7, now, "evaluated", {"split": "selection", "metrics": {"mean": 1.0}})
    assert event_json(event)["data"] == {"split": "validation", "metrics": {"mean": 1.0}}
    event = JobEvent(8, now, "published", {"prompt": 0, "metrics": metrics})
    assert event_json(event)["data"]["metrics"] == found


@pytest.mark.usefixtures("compile_cache")
def curve(version: PromptVersion) -> list[dict[str, Any]]:
    """What was measured, without how long it took."""
    return [{**each, "seconds": None} for each in version.lineage["evaluations"]]


def test_a_job_of_before_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    file, rows = upload(store, jsonl()), upload(store, jsonl(20, 9), "rows.jsonl")
    data = {"train": {"file": file}, "test": {"file": rows}, "validation_rows": 10}
    sent = service_tools.document(file, data=data)
    whole = service_tools.done(store, tmp_path, sent | {"task": "whole"})
    spec = as_before(JobDocument.from_json(sent).for_base(FINGERPRINT).to_json())
    watcher = Watcher(hold_after=10)
    with running(store, tmp_path, watcher=watcher) as service:
        job = store.create_job(TENANT, "tuning", spec)
        assert watcher.reached.wait(300)
        stopping = threading.Thread(target=service.stop, args=(300,))
        stopping.start()
        service_tools.let_go_once_stopped(service, watcher)
        stopping.join()
    (state,) = (tmp_path / "tuning").rglob("job.json")
    body = json.loads(state.read_text())["body"]
    assert body["evaluated_step"] == 3
    body["reported"] = body.pop("tested")
    for each in body["standings"][0]["evaluations"]:
        assert each["split"] == "validation"
        each["split"] = "selection"
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    state.write_text(json.dumps({"digest": digest, "body": body}))
    with running(store, tmp_path, watcher=watcher):
        over = service_tools.finished(store, job)
    assert over.status == "succeeded" and watcher.made == 6, "no step is made twice"
    (prompt,), (expected,) = over.result["prompts"], whole.result["prompts"]
    assert (prompt["digest"], prompt["metrics"]) == (expected["digest"], expected["metrics"])
    version, unbroken = (store.get_version(TENANT, task, 1) for task in ("letters", "whole"))
    for name in ("data", "chosen_on"):
        assert version.lineage[name] == unbroken.lineage[name]
    assert curve(version) == curve(unbroken)
    assert {each["split"] for each in version.lineage["evaluations"]} == {"validation", "test"}
    store.close()


def test_a_version_tuned_before_is_answered_in_the_new_names_and_an_uploaders_words_stay(
    tmp_path: Path,
) -> None:
    store = PromptStore.open(tmp_path)
    values = np.ones((2, 4), np.float32)
    manifest = PromptManifest(prompt_digest(values), *values.shape, base_fingerprint=FINGERPRINT)
    lineage = {
        "source": "tuning", "chosen_on": "report", "data": {"report": {"rows": 2}, "train": {"rows": 3}},
        "evaluations": [{"split": "report", "step": 1, "metrics": {"mean": 1.0}}],
    }  # fmt: skip
    metrics = {"selection_accuracy": 0.5, "report_mean": 1.0}
    made = store.publish(TENANT, "t", values, manifest, lineage=lineage, metrics=metrics).version
    assert version_json(made, {})["metrics"] == {"validation_accuracy": 0.5, "test_mean": 1.0}
    assert version_json(made, {})["lineage"] == {
        "source": "tuning", "chosen_on": "test", "data": {"test": {"rows": 2}, "train": {"rows": 3}},
        "evaluations": [{"split": "test", "step": 1, "metrics": {"mean": 1.0}}],
    }  # fmt: skip
    left_out = version_json(replace(made, lineage=lineage | {"evaluations": None, "data": "mine"}), {})
    assert left_out["lineage"]["evaluations"] is None and left_out["lineage"]["data"] == "mine"
    uploaded = replace(made, lineage={"chosen_on": "report"})
    assert version_json(uploaded, {})["metrics"] == metrics
    assert version_json(uploaded, {})["lineage"] == {"chosen_on": "report"}
    store.close()
