"""What a calibration is worth: fitted to the rows that chose a prompt, measured on its report rows.

    python -m benchmarks.tuning.label_scores FOLDER     first: log probabilities, once
    python -m benchmarks.tuning.calibration FOLDER      the result file, and its table in Markdown

Every way of `WAYS` is fitted by `server/chorus_server/calibration/`, as tuning jobs do. Of several seeds the
mean is told. `noise` is the error that right probabilities would show too on so few rows: the mean over 200
draws of truths from those of `temperature`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.tuning.merge import RESULTS
from benchmarks.tuning.results import ROOT
from benchmarks.tuning.tasks import TASKS
from chorus_server.calibration.applying import probabilities
from chorus_server.calibration.fitting import Scaling, fit
from chorus_server.calibration.measuring import Measures, measures_of

Rows = list[list[float]]
WAYS: dict[str, Callable[[Rows, Sequence[int]], Scaling]] = {
    "raw": lambda scores, truth: Scaling(1.0),
    "temperature": lambda scores, truth: fit(scores, truth),
    "prior": lambda scores, truth: fit(scores, truth, with_prior=True),
}
DRAWS = 200
AT = 0.95
Document = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    tasks = {name: measured(options.folder / f"{name}.npz") for name in TASKS if has(options.folder, name)}
    document = {
        "what": "calibration",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "tasks": tasks,
    }
    path = RESULTS / f"{document['date']}-{machine()['name']}-calibration.json"
    path.write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
    print(table(tasks))
    print(f"\n{path.relative_to(ROOT)}")


def has(folder: Path, name: str) -> bool:
    """Whether a task's log probabilities are kept."""
    return (folder / f"{name}.npz").exists()


def measured(path: Path) -> Document:
    """Of one task: its rows, and for each way what it fitted and measured, a list over the seeds."""
    kept = np.load(path)
    known, wanted = kept["validation_truth"].tolist(), kept["test_truth"].tolist()
    seeds = len(kept["validation"])
    ways: dict[str, list[Document]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        validation = kept["validation"][seed].astype(float).tolist()
        test = kept["test"][seed].astype(float).tolist()
        for way, fitted in WAYS.items():
            scaling = fitted(validation, known)
            shares = [probabilities(row, scaling) for row in test]
            facts = numbers(scaling, measures_of(shares, wanted))
            if way == "temperature":
                facts["noise"] = noise(shares, seed)
            ways[way].append(facts)
    return {
        "validation_rows": len(known),
        "test_rows": len(wanted),
        "seeds": seeds,
        "pieces": kept["pieces"].tolist(),
        "ways": ways,
    }


def numbers(scaling: Scaling, measures: Measures) -> Document:
    """One seed's figures."""
    coverage = next(each.coverage for each in measures.risk_coverage if each.accuracy == AT)
    return {
        "temperature": round(scaling.temperature, 4),
        "prior": None if scaling.prior is None else [round(own, 3) for own in scaling.prior],
        "accuracy": round(measures.accuracy, 4),
        "ece": round(measures.ece, 4),
        "brier": round(measures.brier, 4),
        "nll": round(measures.nll, 4),
        "coverage": round(coverage, 4),
    }


def noise(shares: Sequence[Sequence[float]], seed: int) -> float:
    """The calibration error that these probabilities would show if they were right."""
    chance = np.random.default_rng(seed)
    table = np.asarray(shares)
    found = []
    for _ in range(DRAWS):
        drawn = (table.cumsum(axis=1) < chance.random((len(table), 1))).sum(axis=1)
        found.append(measures_of(shares, np.minimum(drawn, table.shape[1] - 1).tolist()).ece)
    return round(float(np.mean(found)), 4)


def table(tasks: Document) -> str:
    """In Markdown; errors and accuracies in points."""
    lines = [
        "| task | rows | T | error: raw | T | T and prior | noise | Brier: raw | T | T and prior | "
        "accuracy: raw | with prior | answered alone at 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, task in tasks.items():
        errors = [mean(task, way, "ece") for way in WAYS]
        best = min(range(3), key=errors.__getitem__)
        shown = [f"**{100 * e:.1f}**" if n == best else f"{100 * e:.1f}" for n, e in enumerate(errors)]
        squares = [mean(task, way, "brier") for way in WAYS]
        least = min(range(3), key=squares.__getitem__)
        briers = [f"**{e:.3f}**" if n == least else f"{e:.3f}" for n, e in enumerate(squares)]
        seeds = f" x {task['seeds']}" if task["seeds"] > 1 else ""
        lines.append(
            f"| {name} | {task['validation_rows']}, {task['test_rows']}{seeds} | "
            f"{mean(task, 'temperature', 'temperature'):.2f} | {' | '.join(shown)} | "
            f"{100 * mean(task, 'temperature', 'noise'):.1f} | {' | '.join(briers)} | "
            f"{100 * mean(task, 'raw', 'accuracy'):.1f} | {100 * mean(task, 'prior', 'accuracy'):.1f} | "
            f"{100 * mean(task, 'prior', 'coverage'):.0f} % |"
        )
    every = ["| **mean** | | "]
    for way in WAYS:
        every.append(f"| {100 * np.mean([mean(task, way, 'ece') for task in tasks.values()]):.1f} ")
    every.append("| ")
    for way in WAYS:
        every.append(f"| {np.mean([mean(task, way, 'brier') for task in tasks.values()]):.3f} ")
    for way in ("raw", "prior"):
        every.append(f"| {100 * np.mean([mean(task, way, 'accuracy') for task in tasks.values()]):.1f} ")
    return "\n".join([*lines, "".join(every) + "| |"])


def mean(task: Document, way: str, figure: str) -> float:
    """Over the seeds."""
    return float(np.mean([each[figure] for each in task["ways"][way]]))


if __name__ == "__main__":
    main()
