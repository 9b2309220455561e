"""The folder `base_model` of this checkout: what the model card promises is what lies there."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from chorus_server import app
from chorus_server.app import base_info, load
from chorus_server.embedded import embedded_folder, register_demo
from chorus_server.model.checkpoints import load_model
from chorus_server.settings import Settings
from prompts_store.store import PromptStore

LARGEST_WEIGHTS = 24_000_000


@pytest.fixture(scope="module")
def base() -> Path:
    folder = embedded_folder()
    assert folder is not None, "a checkout ships a base"
    return folder


def document(base: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((base / name).read_text())
    return found


def test_the_weights_are_small_and_are_those_of_the_card_and_of_the_prompts(base: Path) -> None:
    assert sum(path.stat().st_size for path in (base / "model").rglob("*")) <= LARGEST_WEIGHTS
    fingerprint = load_model(base / "model").fingerprint
    assert document(base, "card.json")["fingerprint"] == fingerprint
    made, _ = register_demo(PromptStore.in_memory(), "default", base, fingerprint)
    assert len(made) >= 5


def test_a_server_keeps_matrices_in_the_type_that_was_asked_for(base: Path) -> None:
    said: list[str] = []
    settings = Settings(model=str(base / "model"), compute_dtype="f32", matrix_dtype="bf16")
    model = load(settings, said.append).model
    assert (model.dtype, model.matrix_dtype) == ("float32", "bfloat16")
    assert said[0].endswith("(float32, unrolled), matrices in bfloat16: asked for")


@pytest.mark.parametrize(("flags", "dtype"), [({"avx512_bf16"}, "bfloat16"), ({"avx512f"}, "float32")])
def test_a_start_says_which_type_the_processor_chose_and_how_to_choose_otherwise(
    base: Path, monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: str
) -> None:
    monkeypatch.setattr(app, "processor_flags", lambda: frozenset(flags))
    said: list[str] = []
    settings = Settings(model=str(base / "model"), compute_dtype="f32")
    loaded = load(settings, said.append)
    assert loaded.model.matrix_dtype == dtype
    assert f"matrices in {dtype}: this processor" in said[0] and "matrix_dtype=" in said[0]
    exactly = settings.model_copy(update={"matrix_dtype": "f32"})
    info, exact = base_info(settings, loaded), base_info(settings, load(exactly, said.append))
    assert (info.compute_dtype, info.matrix_dtype) == ("float32", dtype)
    assert (info.system_fingerprint == exact.system_fingerprint) == (dtype == "float32")


def test_the_card_tells_data_licences_seed_curve_and_limits(base: Path) -> None:
    card, text = document(base, "card.json"), (base / "CARD.md").read_text()
    assert card["limits"] and card["curve"] and card["training"]["tokens"] > 0
    assert card["training"]["settings"]["seed"] == 0 and card["data"]["licence"] != "not stated"
    assert len(card["data"]["left_out"]) >= 2
    before = card["base"]
    while before["base"] is not None:
        before = before["base"]
    assert before["training"]["settings"]["objective"] == "span_corruption"
    assert all(file["sha256"] in text for file in before["data"]["corpus"])


def test_the_figures_of_the_prompts_are_those_that_are_registered(base: Path) -> None:
    figures = {each["task"]: each for each in document(base, "card.json")["prompts"]}
    tasks = document(base, "demo.json")["tasks"]
    assert set(figures) == {task["task"] for task in tasks}
    text = (base / "CARD.md").read_text()
    for task in tasks:
        figure = figures[task["task"]]
        accuracies = [version["metrics"]["accuracy"] for version in task["versions"]]
        assert len(accuracies) >= 3 and figure["accuracy"] == accuracies
        assert figure["mean"] == pytest.approx(mean(accuracies))
        assert figure["licence"] in text and figure["majority"] > 0 and figure["bag_of_words"] > 0
        chosen = max(version["metrics"]["validation_accuracy"] for version in task["versions"])
        assert task["versions"][task["live"] - 1]["metrics"]["validation_accuracy"] == chosen
