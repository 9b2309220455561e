"""The whole way from text to the folder that ships, at toy size, by the command that makes the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pretraining.result import adaptation_chart, loss_chart, read_result, table
from chorus_server.model.checkpoints import load_model
from prompts_store.artifacts import ArtifactLimits, read_artifact
from tests.compiling import QUICKLY
from tests.places import ROOT

LABELS = ("river", "door")
PLAN: dict[str, Any] = {
    "name": "toy", "pieces": 300, "fractions": [50], "leave_out": ["second"], "seeds": 2,
    "selection_share": 0.25,
    "architecture": {
        "d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 2, "num_encoder_layers": 1,
        "num_decoder_layers": 1,
    },
    "pretrain": {"steps": 3, "batch_size": 4, "input_length": 32, "evaluate_batches": 1},
    "adapt": {"steps": 2, "batch_size": 4, "input_length": 32, "evaluate_batches": 1},
    "mix": {"steps": 2, "batch_size": 4, "input_length": 96, "target_length": 16, "evaluate_batches": 1},
    "recipe": {
        "steps": 2, "batch_size": 4, "micro_batch_size": 4, "prompt_length": 3, "max_input_tokens": 96,
        "max_target_tokens": 8, "evaluate_every_steps": 1, "dropout_rate": 0.0,
    },
    "figure": {
        "steps": 1, "batch_size": 4, "micro_batch_size": 4, "prompt_length": 2, "max_input_tokens": 32,
        "max_target_tokens": 8, "evaluate_every_steps": 1, "dropout_rate": 0.0,
    },
    "figure_tasks": ["first"],
}  # fmt: skip


def task(name: str, source: str) -> dict[str, Any]:
    def rows(count: int) -> list[Any]:
        return [[{"text": f"the cat sees {n} {LABELS[n % 2]}s"}, LABELS[n % 2]] for n in range(count)]

    return {
        "name": name, "template": "{text}", "labels": LABELS, "licence": "free", "source": source,
        "train": rows(40), "report": rows(10),
    }  # fmt: skip


def make(work: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # The checkpoints of the figures are tuned on by the same programs.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(work / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [
        sys.executable,
        ROOT / "scripts" / "make_base.py",
        work,
        "--plan",
        work / "plan.json",
        *arguments,
    ]
    # Tests compile more than they compute.
    environment = {**cache, **os.environ, **QUICKLY, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "tasks").mkdir()
    for name in ("first", "second"):
        (folder / "tasks" / f"{name}.json").write_text(json.dumps(task(name, f"made up, {name}")))
    who, what = ("cat", "wolf", "king", "aunt"), ("door", "harbour", "letter", "child")
    sentences = [
        f"the {who[n % 4]} sees the {what[n // 4 % 4]} and {n} stones by the long quiet river."
        for n in range(128)
    ]
    text = "".join(line + "\n" + ("\n" if n % 16 == 15 else "") for n, line in enumerate(sentences))
    (folder / "corpus.txt").write_text(text)
    first = make(folder, "--stages", "collect,pretrain,adapt,mix,store", "--corpus", folder / "corpus.txt",
                 "--held-out-share", 0.25, "--attention", "dense",
                 "--checkpoint-dir", folder / "kept-state",
                 "--parts", folder / "out", "--part-bytes", 20_000)  # fmt: skip
    assert first.returncode == 0, first.stderr
    stages = sorted(path.parent.name for path in (folder / "kept-state").glob("*/[0-9]*"))
    assert stages == ["adapted", "mixed", "pretrained"]
    second = make(folder, "--corpus", folder / "corpus.txt", "--held-out-share", 0.25)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("finished already") == 3, "a finished stage costs nothing; xla is dense"
    return folder


def test_the_base_loads_and_its_prompts_fit_it(work: Path) -> None:
    loaded = load_model(work / "base" / "model")
    assert loaded.vocabulary is not None
    demo = json.loads((work / "base" / "demo.json").read_text())
    assert demo["base_fingerprint"] == loaded.fingerprint
    files = [path for path in (work / "base").rglob("*") if path.is_file()]
    assert not any(str(work).encode() in path.read_bytes() for path in files)
    assert [each["task"] for each in demo["tasks"]] == ["first", "second"]
    limits = ArtifactLimits(width=16, max_length=8, base_fingerprint=loaded.fingerprint)
    for each in demo["tasks"]:
        assert len(each["versions"]) == 2 and each["live"] in (1, 2)
        for version in each["versions"]:
            artifact = read_artifact((work / "base" / version["file"]).read_bytes(), limits=limits)
            assert artifact.values.shape == (3, 16) and np.isfinite(artifact.values).all()
            assert artifact.metadata.labels == LABELS and artifact.metadata.template == "{text}"
            assert 0 <= version["metrics"]["accuracy"] <= 1
    assert demo["ensembles"] == [{"name": "first-vote", "task": "first", "versions": [1, 2]}]


def test_the_card_says_what_was_seen(work: Path) -> None:
    card = json.loads((work / "base" / "card.json").read_text())
    figures = {each["task"]: each for each in card["prompts"]}
    assert not figures["first"]["unseen"] and figures["second"]["unseen"]
    # Half of the rows has each label, and the label's word is in the text.
    assert figures["first"]["majority"] == 0.5 and figures["first"]["bag_of_words"] == 1.0
    assert card["data"]["left_out"] == ["second"] and set(card["data"]["tasks"]) == {"first"}
    text = (work / "base" / "CARD.md").read_text()
    for said in (
        "made up, second",
        "| yes | free |",
        "first: made up, first, free",
        "prefix_lm",
        "span_corruption",
        "corpus.txt",
    ):
        assert said in text


def test_the_figures_and_the_result(work: Path) -> None:
    labels = [each["label"] for each in json.loads((work / "figure.json").read_text())]
    checkpoints = [
        "span corruption",
        "span corruption with sentinel",
        "adapted 50 percent",
        "adapted 100 percent",
    ]
    assert sorted(labels) == sorted(checkpoints)
    found = read_result(work)
    assert set(found["curves"]) == {"pretrained", "adapted", "mixed"}
    rows = [line.split(" | ")[0].lstrip("| ") for line in table(found)]
    assert rows[2:4] == ["first", "second"] and rows[-4:] == checkpoints
    ends = {points[-1][0] for points in loss_chart(found).series.values()}
    assert len(ends) == 3, "stage after stage"
    adaptation = adaptation_chart(found).series
    assert [x for x, _ in adaptation["first"]] == [0, 50, 100]
    assert [x for x, _ in adaptation["first, sentinel"]] == [0]


def test_parts_are_bounded_and_join_to_what_ships(work: Path) -> None:
    parts = sorted((work / "out").iterdir())
    assert len(parts) > 1 and all(path.stat().st_size <= 20_000 for path in parts)
    with tarfile.open(fileobj=BytesIO(b"".join(path.read_bytes() for path in parts))) as archive:
        names = set(archive.getnames())
        member = archive.extractfile("shipped/model/chorus.json")
        assert member is not None
        assert member.read() == (work / "shipped" / "model" / "chorus.json").read_bytes()
    assert "shipped/card.json" in names


def test_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"sizes": 3}))
    done = make(tmp_path, "--stages", "mix")
    assert done.returncode == 1 and "unknown field sizes" in done.stderr
    (tmp_path / "plan.json").write_text(json.dumps({"tasks": ["sentiment", "weather"]}))
    done = make(tmp_path, "--stages", "collect", "--data", tmp_path)
    assert done.returncode == 1 and "the plan's tasks name weather; there are sentiment, " in done.stderr
    (tmp_path / "plan.json").write_text(json.dumps({"tasks": ["reviews"]}))
    done = make(tmp_path, "--stages", "collect", "--data", tmp_path)
    assert done.returncode == 1 and " lacks " in done.stderr and "amazonReviewSnippets" in done.stderr
    assert not (tmp_path / "tasks").exists()
    done = make(tmp_path, "--stages", "bake")
    assert done.returncode == 2 and "no stage bake" in done.stderr
