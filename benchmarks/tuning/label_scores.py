"""Log probabilities of each task's labels on the rows that chose its prompt and on its report rows.

    python -m benchmarks.tuning.label_scores FOLDER [TASK ...]

`benchmarks.tuning.calibration` fits and measures on what this keeps, again and again at no cost. Prompts that
`benchmarks/results/quality_prompts/` has are taken from there; the others' first seed is tuned again by
`plan.json`, to the step that was chosen then. What is kept in FOLDER is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.tuning.base import Base
from benchmarks.tuning.merge import RESULTS
from benchmarks.tuning.prompts import train_prompts
from benchmarks.tuning.quality import say
from benchmarks.tuning.restore import PROMPTS
from benchmarks.tuning.results import DATA, MODEL
from benchmarks.tuning.rows import load_rows
from benchmarks.tuning.tasks import TASKS
from chorus_server.tuning.training.initialisers import PromptValues

KEPT = {"sst2": "sst2-one", "trec": "trec-prompts"}
KEPT_RUNS = RESULTS / "2026-11-25-2core-cpu-quality.json"
REPORT_ROWS = {"banking77": 100, "boolq": 200, "mrpc": 300}
"""Of these tasks only so many report rows: 77 labels, and long passages, take long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    base = Base.load(MODEL)
    for task in options.tasks:
        path = options.folder / f"{task}.npz"
        if not path.exists():
            say(task)
            np.savez(path, **gather(base, task))  # type: ignore[arg-type]
            say(f"{task} kept")


def gather(base: Base, task: str) -> dict[str, PromptValues]:
    """`validation` and `test`: log probabilities [N, R, C] of N seeds; `..._truth`: places of the right
    labels [R]; `pieces`: of each label, with `</s>` [C]."""
    rows = load_rows(task, DATA)
    prompts = tuned(base, task)
    labels = [base.ids(label, 64) for label in rows.task.labels]
    found: dict[str, Any] = {"pieces": np.array([len(label) for label in labels])}
    report = rows.report[: REPORT_ROWS.get(task, len(rows.report))]
    for name, split in (("validation", rows.selection.rows), ("test", report)):
        inputs = [base.ids(row.text, rows.task.long_text_tokens) for row in split]
        found[name] = base.scores(prompts, inputs, labels)
        found[f"{name}_truth"] = np.array([rows.task.labels.index(row.answers[0]) for row in split])
    return found


def tuned(base: Base, task: str) -> PromptValues:
    """[N, P, D]: the prompts that are kept, or the first seed's, tuned again."""
    if task in KEPT:
        kept: PromptValues = load_file(PROMPTS / f"{KEPT[task]}.safetensors")["prompts"]
        return kept
    plan = json.loads((Path(__file__).parent / "plan.json").read_text())["runs"]
    run = next(run for run in plan if run["name"] == f"{task}-prompts")
    chosen = json.loads(KEPT_RUNS.read_text())["runs"][run["name"]]["chosen_step"][0]
    recipe = {**run["recipe"], "steps": chosen, "evaluate_every_steps": chosen}
    run = {**run, "name": f"calibration-{task}", "seeds": 1, "recipe": recipe}
    _, state, _ = train_prompts(base, run, say)
    return state.best


if __name__ == "__main__":
    main()
