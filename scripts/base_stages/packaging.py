"""The folder that ships: weights, vocabulary, prompts, their figures, cards.

base/model/                 a Chorus checkpoint
base/prompts/TASK-N.safetensors
base/demo.json              what a server registers on its first start
base/card.json, CARD.md     the model card
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from base_stages.plan import Plan, write_document
from base_stages.tasks import Task
from chorus_server.model.checkpoints import open_checkpoint
from chorus_server.pretraining.card import as_text
from prompts_store.artifacts import write_artifact
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest

MAX_BASE_BYTES = 24_000_000


def results_of(work: Path, task: str) -> dict[str, Any]:
    """The results that the stage `tune` wrote for a task."""
    found: dict[str, Any] = json.loads((work / "prompts" / task / "results.json").read_text())
    return found


def package(work: Path, plan: Plan, tasks: list[Task], target: Path) -> None:
    """Write `target`, which must not exist: tasks in the plan's order, and an ensemble of the first one's
    seeds. Raises SystemExit if the weights are too large to ship.
    """
    size = sum(path.stat().st_size for path in (work / "shipped" / "model").rglob("*") if path.is_file())
    if size > MAX_BASE_BYTES:
        raise SystemExit(
            f"the weights take {size:,} bytes, and at most {MAX_BASE_BYTES:,} may be shipped: use a smaller "
            "plan, or int8"
        )
    making = target.with_name(f".{target.name}.partial")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(work / "shipped" / "model", making / "model")
    _forget_machine(making / "model", plan.name)
    fingerprint = open_checkpoint(making / "model").fingerprint
    assert fingerprint is not None
    places = {name: n for n, name in enumerate(plan.tasks)}
    shipped = sorted((task for task in tasks if task.shipped), key=lambda task: places.get(task.name, 99))
    demo = [_prompts(work, making, task, fingerprint) for task in shipped]
    ensemble = {
        "name": f"{demo[0]['task']}-vote",
        "task": demo[0]["task"],
        "versions": list(range(1, plan.seeds + 1)),
    }
    write_document(
        making / "demo.json", {"base_fingerprint": fingerprint, "tasks": demo, "ensembles": [ensemble]}
    )
    figures = [_figures(work, plan, task) for task in shipped]
    card = json.loads((work / "shipped" / "card.json").read_text())
    card["prompts"] = figures
    write_document(making / "card.json", card)
    (making / "CARD.md").write_text(as_text(card) + _figures_text(figures))
    making.rename(target)


def _forget_machine(model: Path, name: str) -> None:
    """Make the shipped files name the model that they were converted from, and no folder of the machine that
    made it."""
    document = json.loads((model / "chorus.json").read_text())
    write_document(model / "chorus.json", {**document, "source": name})
    for mark in model.rglob("commit_success.txt"):  # only its presence matters to Orbax
        mark.write_text("Checkpoint commit was successful\n")


def _prompts(work: Path, making: Path, task: Task, fingerprint: str) -> dict[str, Any]:
    """The prompt files of a task, and what to register: every version, and which one is live."""
    results = results_of(work, task.name)
    values = np.load(work / "prompts" / task.name / "values.npy")
    (making / "prompts").mkdir(exist_ok=True)
    versions = []
    for seed, prompt in enumerate(values):
        settings = {"max_new_tokens": 16}
        manifest = PromptManifest(
            prompt_digest(prompt), *prompt.shape, base_fingerprint=fingerprint, template=task.template,
            labels=task.labels, settings=settings,
        )  # fmt: skip
        name = f"{task.name}-{seed + 1}.safetensors"
        (making / "prompts" / name).write_bytes(write_artifact(prompt, "safetensors", manifest=manifest))
        metrics = {"accuracy": results["report"][seed], "validation_accuracy": results["selection"][seed]}
        versions.append({"file": f"prompts/{name}", "metrics": metrics, "lineage": {
            "seed": seed, "recipe": results["recipe"], "data": task.source, "licence": task.licence,
        }})  # fmt: skip
    live = int(np.argmax(results["selection"])) + 1
    example = task.report[0][0]
    return {
        "task": task.name, "description": f"{task.source}; labels: {', '.join(task.labels[:8])}",
        "template": task.template, "labels": list(task.labels), "settings": {"max_new_tokens": 16},
        "live": live, "versions": versions, "example": example,
    }  # fmt: skip


def _figures(work: Path, plan: Plan, task: Task) -> dict[str, Any]:
    results = results_of(work, task.name)
    baselines = json.loads((work / "baselines.json").read_text())[task.name]
    report = results["report"]
    return {
        "task": task.name, "source": task.source, "licence": task.licence, "examples": len(task.report),
        "accuracy": report, "mean": mean(report), "deviation": stdev(report) if len(report) > 1 else 0.0,
        **baselines, "unseen": not plan.mix or task.name in plan.leave_out,
    }  # fmt: skip


def _figures_text(figures: list[dict[str, Any]]) -> str:
    lines = [
        "", "## Prompts", "",
        "Accuracy on rows that nothing was chosen on: mean and deviation over the seeds. Unseen tasks",
        "were left out of the supervised stage.", "",
        "| task | data | prompts | bag of words | majority | unseen | licence |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for each in figures:
        lines.append(
            f"| {each['task']} | {each['source']}, {each['examples']:,} rows | {100 * each['mean']:.1f} ± "
            f"{100 * each['deviation']:.1f} | {100 * each['bag_of_words']:.1f} | "
            f"{100 * each['majority']:.1f} | {'yes' if each['unseen'] else 'no'} | {each['licence']} |"
        )
    return "\n".join(lines) + "\n"
