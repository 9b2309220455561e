"""A 400 names a field that the caller sent, whoever set the value that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest
from tests.server.api.api_harness import FINGERPRINT, ApiServer, error_of, prompt

LONG = "good film review " * 8
"""More tokens than the 8 that the server scores."""
GENERATE, CLASSIFY, ENSEMBLE = "/v1/generate", "/v1/classify", "/v1/ensemble"


def sent(body: Any, field: str) -> bool:
    """Whether a dotted path leads to something in a body."""
    for part in field.split("."):
        if isinstance(body, list) and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        elif isinstance(body, Mapping) and body.get(part) is not None:
            body = body[part]
        else:
            return False
    return True


VERSIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "longlabel": {"labels": ("yes", LONG)},
    "manylabels": {"labels": tuple(f"label {n}" for n in range(300))},
    "onelabel": {"labels": ("yes",)},
    "longanswer": {"settings": {"max_new_tokens": 1_000}},
    "wide": {"settings": {"num_beams": 32}},
    "samples": {"settings": {"n": 40, "temperature": 1.0}},
    "floor": {"settings": {"min_new_tokens": 9, "max_new_tokens": 9}},
    "stops": {"settings": {"stop": ["no"]}},
    "beams": {"settings": {"num_beams": 2}},
    "warm": {"settings": {"temperature": 1.0, "n": 3}},
}
"""Let in by another server, or an older one."""


@pytest.fixture(scope="module")
def stocked(api: ApiServer) -> ApiServer:
    values = prompt()
    for task, own in VERSIONS.items():
        manifest = PromptManifest(prompt_digest(values), 3, 6, base_fingerprint=FINGERPRINT, **own)
        api.store.publish("default", task, values, manifest, created_by="elsewhere")
    return api


def _items(*items: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"requests": [{"input": "good", **item} for item in items], **beside}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CLASSIFY, {"task": "longlabel"}, "task"),
        (CLASSIFY, {"task": "manylabels"}, "task"),
        (CLASSIFY, {"task": "longlabel", "labels": ["yes", LONG]}, "labels.1"),
        (GENERATE, {"task": "longanswer"}, "task"),
        (GENERATE, {"task": "longanswer", "max_new_tokens": 999}, "max_new_tokens"),
        (GENERATE, {"task": "wide"}, "task"),
        (GENERATE, {"task": "samples"}, "task"),
        (GENERATE, {"task": "samples", "n": 39}, "n"),
        (GENERATE, {"task": "floor", "max_new_tokens": 3}, "max_new_tokens"),
        (GENERATE, {"task": "floor", "min_new_tokens": 99}, "min_new_tokens"),
        (GENERATE, {"task": "stops", "num_beams": 2}, "num_beams"),
        (GENERATE, {"task": "beams", "n": 5}, "n"),
        (GENERATE, {"task": "beams", "stop": ["x"]}, "stop"),
        (GENERATE, {"task": "warm", "temperature": 0}, "temperature"),
        (GENERATE, _items({"task": "plain"}, {"task": "longanswer"}), "requests.1.task"),
        (GENERATE, _items({"task": "plain"}, max_new_tokens=999), "max_new_tokens"),
        (GENERATE, _items({"task": "plain", "max_new_tokens": 999}, max_new_tokens=3),
         "requests.0.max_new_tokens"),
        (GENERATE, _items({"task": "plain", "n": 5}, num_beams=2), "requests.0.n"),
        (GENERATE, _items({"task": "plain"}, n=5, num_beams=2), "n"),
        (GENERATE, _items({"task": "floor"}, max_new_tokens=3), "max_new_tokens"),
        (GENERATE, {"task": "plain", "inputs": ["good", "good " * 100]}, "inputs.1"),
        (ENSEMBLE, {"tasks": ["longlabel"]}, "tasks.0"),
        (ENSEMBLE, {"tasks": ["manylabels", "manylabels"]}, "tasks.0"),
        (ENSEMBLE, {"tasks": ["plain", "longanswer"]}, "tasks.1"),
        (ENSEMBLE, {"tasks": ["plain", "longanswer"], "max_new_tokens": 999}, "max_new_tokens"),
        (ENSEMBLE, {"tasks": ["plain", "floor"], "max_new_tokens": 3}, "max_new_tokens"),
        (ENSEMBLE, {"tasks": ["plain", "longlabel"], "labels": ["yes", LONG]}, "labels.1"),
        (ENSEMBLE, {"ensemble": "answers"}, "ensemble"),
        (ENSEMBLE, {"ensemble": "labels"}, "ensemble"),
    ],
)  # fmt: skip
def test_what_a_version_cannot_do_names_what_was_sent(
    stocked: ApiServer, path: str, body: dict[str, Any], field: str
) -> None:
    for name, member in (("answers", "longanswer"), ("labels", "longlabel")):
        if body.get("ensemble") == name:
            made = stocked.http.post(f"/v1/ensembles/{name}/versions", json={"tasks": [member]})
            assert made.status_code in (200, 201), made.text
    if "inputs" not in body and "requests" not in body:
        body = {**body, "input": "good"}
    answer = stocked.post(path, body)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["field"] == field and sent(body, field), error


def test_one_label_is_no_choice_and_what_is_missing_may_be_named(stocked: ApiServer) -> None:
    answer = stocked.post(CLASSIFY, {"task": "onelabel", "input": "good"})
    error = error_of(answer)
    assert (answer.status_code, error["field"]) == (400, "labels")
    assert "is required" in error["message"] and "one label only" in error["message"]


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({}, "body"),
        ({"recipe": {"steps": 5}}, "recipe"),
        ({"recipe": {"prompt_length": 63}}, "recipe.prompt_length"),
        ({"recipe": {"steps": 5}, "prompts": [{}, {"recipe": {"learning_rate": 1}}]}, "recipe"),
        ({"recipe": {"prompt_length": 63}, "prompts": [{}, {}]}, "recipe.prompt_length"),
    ],
)
def test_a_jobs_default_names_what_was_sent_around_it(
    stocked: ApiServer, extra: dict[str, Any], field: str
) -> None:
    """The default prompt has 100 rows, and this server's inputs 64 tokens."""
    body = {"task": "tuned", "data": {"train": {"file": "file-" + "0" * 24}}, **extra}
    answer = stocked.post("/v1/tuning/jobs", body)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["field"]) == (400, "prompt_rows_exceeded", field)
    assert field == "body" or sent(body, field)
