"""The base model's name that a PEFT adapter gives: shown, compared, kept, and given back."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest

from chorus_server.api.names_of_bases import base_model_name, may_be_one
from prompts_store.artifacts import write_artifact
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest, PromptVersion
from tests.server.api.api_harness import FINGERPRINT, ApiServer, prompt

BINARY = {"content-type": "application/octet-stream"}
OTHER = "google/t5-v1_1-small"


def push(api: ApiServer, task: str, *, seed: int, name: str | None, told: bool = False, **query: Any) -> Any:
    """Upload a PEFT zip that names its base; `told` gives it the fingerprint that Chorus writes too."""
    values = prompt(3, seed=seed)
    manifest = PromptManifest(prompt_digest(values), *values.shape, base_fingerprint=FINGERPRINT)
    content = write_artifact(values, "peft", manifest=manifest if told else None, base_model_name=name)
    answer = api.http.post(f"/v1/tasks/{task}/versions", content=content, headers=BINARY, params=query)
    assert answer.status_code == 201, answer.text
    return answer.json()


def adapter(api: ApiServer, task: str) -> Any:
    answer = api.http.get(f"/v1/tasks/{task}/versions/1/artifact", params={"format": "peft"})
    assert answer.status_code == 200
    return json.loads(zipfile.ZipFile(io.BytesIO(answer.content)).read("adapter_config.json"))


def test_another_name_is_warned_of_and_kept(api: ApiServer) -> None:
    made = push(api, "named-other", seed=1, name=OTHER)
    assert len(made["notes"]) == 1
    assert made["notes"][0].startswith("Warning: ")
    assert f"'{OTHER}'" in made["notes"][0] and "'tiny'" in made["notes"][0]
    assert made["lineage"] == {"format": "peft", "base_model_name": OTHER}
    assert made["base_fingerprint"] == FINGERPRINT
    shown = api.http.get("/v1/tasks/named-other/versions/1").json()
    assert shown["lineage"]["base_model_name"] == OTHER
    assert adapter(api, "named-other")["base_model_name_or_path"] == OTHER


def test_this_servers_name_is_no_warning(api: ApiServer) -> None:
    made = push(api, "named-same", seed=2, name="/srv/models/Tiny/")
    assert made["notes"] == [
        "The file names its base model '/srv/models/Tiny/' and gives no fingerprint: recorded as the one "
        "that this server runs, which has that name."
    ]


@pytest.mark.parametrize("told", [True, False], ids=["by the file", "by its sender"])
def test_a_fingerprint_goes_before_a_name(api: ApiServer, told: bool) -> None:
    query = {} if told else {"base_fingerprint": FINGERPRINT}
    made = push(api, f"proven-{told}".lower(), seed=3 + told, name=OTHER, told=told, **query)
    assert made["notes"] == []
    assert made["lineage"]["base_model_name"] == OTHER


def test_what_has_no_name_leaves_with_this_servers(api: ApiServer) -> None:
    made = push(api, "nameless", seed=5, name=None)
    assert made["notes"] == ["The upload names no base model: recorded as the one that this server runs."]
    assert made["lineage"] == {"format": "peft"}
    assert adapter(api, "nameless")["base_model_name_or_path"] == "tiny"


def test_the_senders_lineage_goes_before_the_files_name(api: ApiServer) -> None:
    lineage = json.dumps({"base_model_name": "acme/t5@v2"})
    made = push(api, "renamed", seed=6, name=OTHER, lineage=lineage)
    assert made["lineage"]["base_model_name"] == "acme/t5@v2"
    config = adapter(api, "renamed")
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/t5", "v2")


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "x" * 257, "", 7, {"a": 1}, None])
def test_what_is_no_name_is_never_given_on(api: ApiServer, name: Any) -> None:
    assert api.services.serving is not None
    base = api.services.serving.base
    manifest = PromptManifest("d" * 64, 3, 8, base_fingerprint=FINGERPRINT)
    version = PromptVersion(
        "t", "task", 1, manifest, "m", datetime(2026, 1, 1, tzinfo=UTC), lineage={"base_model_name": name}
    )
    assert base_model_name(version, base) == "tiny"
    assert base_model_name(version, None) is None  # the model is not loaded yet
    # The control: of a prompt that belongs to another base, this server's name would be a lie.
    foreign = dataclasses.replace(version, manifest=dataclasses.replace(manifest, base_fingerprint="e" * 64))
    assert base_model_name(foreign, base) is None
    named = dataclasses.replace(foreign, lineage={"base_model_name": OTHER})
    assert base_model_name(named, base) == base_model_name(named, None) == OTHER


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("google/flan-t5-small", "Google/Flan-T5-Small", True),
        ("google/flan-t5-small", "google/flan-t5-small@main", True),
        ("google/flan-t5-small", "acme/flan-t5-small", False),
        ("google/flan-t5-small", "flan-t5-small", True),
        ("/models/flan-t5-small/", "flan-t5-small", True),
        ("./flan-t5-small", "google/flan-t5-small", True),
        (r"C:\models\flan-t5-small", "flan-t5-small", True),
        ("/cache/hub/models--google--flan-t5-small/snapshots/0613", "google/flan-t5-small", True),
        ("/cache/hub/models--google--flan-t5-small/snapshots/0613", "google/flan-t5-base", False),
        ("google/t5-v1_1-small", "flan-t5-small-title", False),
        ("/", "tiny", False),
    ],
)
def test_names_are_compared(one: str, other: str, same: bool) -> None:
    assert may_be_one(one, other) is may_be_one(other, one) is same
