"""What this server could never serve is told when it is uploaded, and refused when a job would make it."""

from __future__ import annotations

import json
from string import ascii_lowercase
from typing import Any

import httpx2
import pytest

from prompts_store.artifacts import write_artifact
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest
from tests.server.api.api_harness import FINGERPRINT, ApiServer, artifact, error_of, prompt

LONG = "good film review " * 8
BINARY = {"content-type": "application/octet-stream"}

# By name: what the version says, the field within it, what the note names (mostly a setting). The server
# scores labels of at most 8 tokens, has at most 32 new tokens and 8 slots in a block, and takes 64 tokens.
WARNED: dict[str, tuple[dict[str, Any], str, str]] = {
    "long label": ({"labels": ["yes", LONG]}, "labels.1", "score_buckets"),
    "many labels": (
        {"labels": [a + b for a in ascii_lowercase for b in ascii_lowercase][:257]},
        "labels",
        "at most 256",
    ),
    "long answers": ({"settings": {"max_new_tokens": 33}}, "settings.max_new_tokens", "blocks"),
    "many samples": ({"settings": {"n": 9, "temperature": 1}}, "settings.n", "blocks"),
    "a high floor": ({"settings": {"min_new_tokens": 33}}, "settings.min_new_tokens", "blocks"),
    "long template": ({"template": "good film " * 40 + "{text}"}, "template", "input_lengths"),
}
SERVED: dict[str, dict[str, Any]] = {
    "plain": {},
    "labels": {"labels": ["yes", "no"]},
    "most answers": {"settings": {"max_new_tokens": 32}},
    "most beams": {"settings": {"num_beams": 8}},
    "most samples": {"settings": {"n": 8, "temperature": 1}},
    "highest floor": {"settings": {"min_new_tokens": 32}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one label": ({"labels": ["yes"]}, "labels"),
    "labels of the same tokens": ({"labels": ["yes", "no \u4e00", "no \u4e01"]}, "labels.2"),
}

REFUSED_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a field to cut that is nowhere": (
        {"template": "{text} {text}", "settings": {"truncation": {"field": "title", "side": "left"}}},
        "settings.truncation.field",
    ),
    "a field to cut that is there twice": (
        {"template": "{text} {text}", "settings": {"truncation": {"field": "text", "side": "left"}}},
        "settings.truncation.field",
    ),
    "a normaliser that there is not": ({"settings": {"normalizer": "t5"}}, "settings.normalizer"),
    "a normaliser of a field that is nowhere": (
        {"template": "{text}", "settings": {"normalizer": "t5_record"}},
        "settings.normalizer",
    ),
    "a bias of no token": ({"settings": {"logit_bias": {"123456789": 1}}}, "settings.logit_bias"),
}


def push(api: ApiServer, task: str, said: dict[str, Any]) -> httpx2.Response:
    form = {"files": {"file": ("p", artifact())}, "data": {"metadata": json.dumps(said)}}
    return api.http.post(f"/v1/tasks/{task}/versions", **form)  # type: ignore[arg-type]


def job(api: ApiServer, said: dict[str, Any], **changes: Any) -> httpx2.Response:
    file = api.http.post(
        "/v1/files", params={"name": "a.tsv"}, content=b"text\tlabel\na\tyes\n", headers=BINARY
    )
    recipe = {"prompt_length": 3, "steps": 10, "batch_size": 4}
    body = {"task": "tuned", "data": {"train": {"file": file.json()["id"]}}, "recipe": recipe}
    return api.post("/v1/tuning/jobs", {**body, **said, **changes})


def ask(api: ApiServer, task: str, said: dict[str, Any]) -> httpx2.Response:
    """The version as it stands, with the shortest text."""
    return api.post("/v1/classify" if "labels" in said else "/v1/generate", {"task": task, "input": "a"})


@pytest.mark.parametrize("name", WARNED)
def test_what_only_other_settings_could_serve_is_warned_about(api: ApiServer, name: str) -> None:
    said, field, setting = WARNED[name]
    task = name.replace(" ", "-")
    answer = push(api, task, said)
    assert answer.status_code == 201, answer.text
    notes = [note for note in answer.json()["notes"] if "names no base model" not in note]
    assert len(notes) == 1 and setting in notes[0], notes
    refused = ask(api, task, said)
    assert refused.status_code == 400 and error_of(refused)["field"] in ("task", "input"), refused.text
    trained = job(api, said)
    assert (trained.status_code, error_of(trained)["code"]) == (400, "not_servable"), trained.text
    assert error_of(trained)["field"] == field and setting in error_of(trained)["message"]


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_is_not_warned_about(api: ApiServer, name: str) -> None:
    """The control: one step below each limit the same version is served."""
    said, task = SERVED[name], name.replace(" ", "-")
    answer = push(api, task, said)
    assert [note for note in answer.json()["notes"] if "names no base model" not in note] == []
    assert ask(api, task, said).status_code == 200
    assert job(api, said).status_code == 201


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_server_could_serve_is_refused(api: ApiServer, name: str) -> None:
    said, field = REFUSED[name]
    answer = push(api, "refused", said)
    assert (answer.status_code, error_of(answer)["field"]) == (400, f"metadata.{field}"), answer.text
    raw = api.http.post(
        "/v1/tasks/refused/versions", content=artifact(), headers=BINARY, params={"label": said["labels"]}
    )
    assert (raw.status_code, error_of(raw)["field"]) == (400, field.replace("labels", "label"))
    trained = job(api, said)
    assert (trained.status_code, error_of(trained)["field"]) == (400, field), trained.text
    assert api.http.get("/v1/tasks/refused").status_code == 404


def test_an_error_names_the_file_where_the_file_says_it(api: ApiServer) -> None:
    values = prompt()
    for own in ({"labels": ("yes",)}, {"settings": {"temperature": -1}}):
        manifest = PromptManifest(prompt_digest(values), 3, 6, base_fingerprint=FINGERPRINT, **own)  # type: ignore[arg-type]
        content = write_artifact(values, "safetensors", manifest=manifest)
        answer = api.http.post("/v1/tasks/refused/versions", content=content, headers=BINARY)
        assert (answer.status_code, error_of(answer)["field"]) == (400, "file"), answer.text
    answer = push(api, "refused", {"settings": {"temperature": -1}})
    assert error_of(answer)["field"] == "metadata.settings.temperature"


def test_the_field_is_where_the_prompt_says_it(api: ApiServer) -> None:
    prompts = [{"task": "one"}, {"task": "two", "labels": ["yes", LONG]}]
    answer = job(api, {}, prompts=prompts)
    assert error_of(answer)["field"] == "prompts.1.labels.1"
    answer = job(api, {"labels": ["yes", LONG]}, prompts=[{"task": "one"}, {"task": "two"}])
    assert error_of(answer)["field"] == "labels.1"


@pytest.mark.parametrize("name", REFUSED_SETTINGS)
def test_settings_that_no_server_could_serve_are_refused(api: ApiServer, name: str) -> None:
    said, field = REFUSED_SETTINGS[name]
    answer = push(api, "refused", said)
    assert (answer.status_code, error_of(answer)["field"]) == (400, f"metadata.{field}"), answer.text
    trained = job(api, said)
    assert (trained.status_code, error_of(trained)["field"]) == (400, field), trained.text
