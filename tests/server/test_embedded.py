"""The base that ships: found, loaded by name, its prompts registered once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server import embedded
from chorus_server.app import build_app, close_app
from chorus_server.embedded import model_source, register_demo, register_prompts
from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.convert import write_random
from chorus_server.model.config import named_config
from chorus_server.settings import Settings
from prompts_store.artifacts import write_artifact
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest
from prompts_store.store import PromptStore

WIDTH = named_config("tiny").d_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A toy of the folder, and its fingerprint."""
    folder = tmp_path_factory.mktemp("shipped") / "base"
    fingerprint = write_random(named_config("tiny"), folder / "model", seed=3).fingerprint
    (folder / "prompts").mkdir()
    tasks = [_task(folder, name, fingerprint) for name in ("mood", "topic")]
    ensemble = {"name": "mood-vote", "task": "mood", "versions": [1, 2, 3]}
    demo = {"base_fingerprint": fingerprint, "tasks": tasks, "ensembles": [ensemble]}
    (folder / "demo.json").write_text(json.dumps(demo))
    return folder, fingerprint


def _task(folder: Path, name: str, fingerprint: str) -> dict[str, Any]:
    versions = []
    for seed in range(3):
        values = np.random.default_rng([len(name), seed]).normal(size=(4, WIDTH)).astype(np.float32)
        manifest = PromptManifest(prompt_digest(values), 4, WIDTH, base_fingerprint=fingerprint)
        file = f"prompts/{name}-{seed + 1}.safetensors"
        (folder / file).write_bytes(write_artifact(values, "safetensors", manifest=manifest))
        versions.append({"file": file, "metrics": {"accuracy": 0.5 + seed / 10}, "lineage": {"seed": seed}})
    return {
        "task": name, "description": "a toy", "template": "{text}", "labels": ["good", "bad"],
        "settings": {"max_new_tokens": 4}, "live": 2, "versions": versions,
        "example": {"text": "a warm film"},
    }  # fmt: skip


def _live(store: PromptStore, tenant: str = "default") -> dict[str, int]:
    """Every task of a tenant and the version that is live."""
    return {task.name: task.aliases["live"] for task in store.list_tasks(tenant).items}


def test_prompts_are_registered_once(made: tuple[Path, str]) -> None:
    folder, fingerprint = made
    store = PromptStore.in_memory()
    assert register_demo(store, "default", folder, fingerprint) == (["mood", "topic"], [])
    live = store.resolve("mood", tenant="default")
    assert live.number == 2 and live.manifest.labels == ("good", "bad")
    assert live.manifest.base_fingerprint == fingerprint and live.metrics == {"accuracy": 0.6}
    assert np.isfinite(store.values(live.manifest.digest)).all()
    vote = store.resolve_ensemble("mood-vote", tenant="default")
    assert [(member.task, member.version) for member in vote.members] == [("mood", n) for n in (1, 2, 3)]
    # Again: nothing is published, nothing is moved, and what somebody deleted does not come back.
    store.set_alias("default", "mood", "live", 3, moved_by="somebody")
    store.delete_task("default", "topic")
    store.delete_ensemble("default", "mood-vote")
    assert register_demo(store, "default", folder, fingerprint) == ([], ["topic"])
    assert _live(store) == {"mood": 3} and store.last_number("default", "mood") == 3
    assert not store.list_ensembles("default").items


def test_a_task_of_the_tenant_is_left_as_it_is(made: tuple[Path, str]) -> None:
    """Its own versions, and those under `demo`, where an earlier Chorus registered them."""
    folder, fingerprint = made
    store = PromptStore.in_memory()
    register_demo(store, "demo", folder, fingerprint)
    values = np.ones((2, WIDTH), np.float32)
    manifest = PromptManifest(prompt_digest(values), 2, WIDTH, base_fingerprint=fingerprint)
    store.publish("default", "mood", values, manifest, created_by="somebody")
    assert register_demo(store, "default", folder, fingerprint) == (["topic"], ["mood"])
    assert _live(store) == {"mood": 1, "topic": 2} and _live(store, "demo") == {"mood": 2, "topic": 2}
    assert [each.manifest.digest for each in store.list_versions("default", "mood").items] == [
        manifest.digest
    ]
    assert not store.list_ensembles("default").items, "its members would be the tenant's own"
    # A version of their own on top of ours makes it theirs.
    store.publish("demo", "mood", values, manifest, created_by="somebody")
    assert register_demo(store, "demo", folder, fingerprint) == ([], ["mood"])


class _CutShort(PromptStore):
    """A store whose process ends before its change number `changes`."""

    changes = 0

    def _next(self) -> None:
        self.changes -= 1
        if self.changes < 0:
            raise KeyboardInterrupt

    def publish(self, *args: Any, **named: Any) -> Any:
        self._next()
        return super().publish(*args, **named)

    def set_alias(self, *args: Any, **named: Any) -> Any:
        self._next()
        return super().set_alias(*args, **named)

    def publish_ensemble(self, *args: Any, **named: Any) -> Any:
        self._next()
        return super().publish_ensemble(*args, **named)


@pytest.mark.parametrize("changes", range(9))
def test_a_registration_that_was_cut_short_goes_on(made: tuple[Path, str], changes: int) -> None:
    folder, fingerprint = made
    whole, cut = PromptStore.in_memory(), _CutShort.in_memory()
    register_demo(whole, "default", folder, fingerprint)
    cut.changes = changes
    with pytest.raises(KeyboardInterrupt):
        register_demo(cut, "default", folder, fingerprint)
    ended = (_live(cut), len(cut.list_ensembles("default").items))
    assert ended != (_live(whole), 1), "control: something was left to do"
    cut.changes = 100
    register_demo(cut, "default", folder, fingerprint)
    assert _live(cut) == _live(whole) and len(cut.list_ensembles("default").items) == 1
    assert cut.last_number("default", "mood") == cut.last_number("default", "topic") == 3


def test_prompts_of_another_base_are_refused(made: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = made
    store = PromptStore.in_memory()
    with pytest.raises(InvalidModelError, match="prompts of the base"):
        register_demo(store, "default", folder, "0" * 64)
    assert not store.list_tasks("default").items
    bare = tmp_path / "base"
    shutil.copytree(folder / "model", bare / "model")
    assert register_demo(store, "default", bare, "0" * 64) == ([], [])


def test_a_server_without_a_model_takes_the_base(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fingerprint = made
    monkeypatch.delenv("CHORUS_MODEL", raising=False)
    monkeypatch.setattr(embedded, "PLACES", (tmp_path / "nowhere", folder))
    assert model_source("embedded") == str(folder / "model") and model_source("x/y") == "x/y"
    said: list[str] = []
    settings = Settings(data_dir=tmp_path / "data")
    close_app(build_app(settings))
    store = PromptStore.in_memory()
    register_prompts(settings, store, fingerprint, said.append)
    register_prompts(settings, store, fingerprint, said.append)
    assert said == ["registered 2 tasks under the tenant default: mood, topic"]
    register_prompts(Settings(tenant="acme"), store, fingerprint, said.append)
    assert said.pop() == "registered 2 tasks under the tenant acme: mood, topic"
    empty = PromptStore.in_memory()
    register_prompts(Settings(model=str(folder / "model")), empty, fingerprint, said.append)
    assert len(said) == 1 and not empty.list_tasks("default").items


def test_nothing_ships_and_no_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHORUS_MODEL", raising=False)
    monkeypatch.setattr(embedded, "PLACES", (tmp_path,))
    with pytest.raises(InvalidModelError) as caught:
        build_app(Settings(data_dir=tmp_path / "data"))
    assert caught.value.field == "model" and not (tmp_path / "data").exists()
    for word in ("--model", "CHORUS_MODEL", "required"):
        assert word in caught.value.message
