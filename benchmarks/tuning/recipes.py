"""The paper's recipe beside the released code's, on the base that ships: the same seeds on two tasks.

    python -m benchmarks.tuning.recipes FOLDER                 some 25 minutes on two quiet cores
    python -m benchmarks.tuning.recipes FOLDER --steps 20      a try

The recipes differ in Adafactor's t and in the reduction of the loss; no text of these tasks is so long that
the third difference, 512 tokens of text beside the prompt, matters. Needs the data sets of `$CHORUS_SHARED`.
What is done is kept in FOLDER, a file for each task and recipe, and not done again. How busy the machine is
changes no accuracy. Prints a table, and leaves `recipes.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.machine import machine
from benchmarks.tuning.base import Base
from benchmarks.tuning.measuring import measure_prompts
from benchmarks.tuning.prompts import make_job
from benchmarks.tuning.results import DATA, ROOT, save
from benchmarks.tuning.rows import load_rows
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import compile_programs
from chorus_server.tuning.training.shapes import shapes_for

TASKS = ("ag_news", "sst2")
RECIPES = ("paper", "released")
SEEDS = 3
SHARED = {
    "prompt_length": 20, "batch_size": 16, "max_target_tokens": 16, "evaluate_every_steps": 50,
    "checkpoint_every_steps": 1_000,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    base, runs = None, []
    for task in TASKS:
        for name in RECIPES:
            file = options.folder / f"{task}-{name}.json"
            if not file.exists():
                base = base or Base.load(ROOT / "base_model" / "model")
                save(options.folder, file.name, trained(base, task, name, options.steps))
            runs.append(json.loads(file.read_text()))
    save(options.folder, "recipes.json", {"machine": machine(), "runs": runs})
    print("| task | recipe | each | mean | sd | last loss |\n| --- | --- | --- | --- | --- | --- |")
    for run in runs:
        each = [100 * seed["accuracy"] for seed in run["report"]]
        texts = (run["task"], run["recipe"], " ".join(f"{value:.1f}" for value in each))
        print(f"| {' | '.join(texts)} | {mean(each):.1f} | {stdev(each):.1f} | {mean(run['losses']):.3f} |")


def trained(base: Base, task: str, name: str, steps: int) -> dict[str, Any]:
    """Three prompts of one recipe, measured on rows that nothing was chosen on."""
    rows = load_rows(task, DATA)
    recipe = Recipe.from_json({"defaults": name, "steps": steps, **SHARED})
    job = make_job(base, rows, [recipe] * SEEDS)
    dropping = recipe.dropout_rate > 0
    programs = compile_programs(base.functions, base.params, shapes_for(job, rungs=3), dropping=dropping)
    loop = TuningLoop(job, programs, base.vocabulary.decode)
    while not loop.done:
        loop.run_slice(100)
    return {
        "task": task,
        "recipe": name,
        "knobs": recipe.to_json(),
        "base": base.fingerprint,
        "data": rows.digests,
        "chosen_step": [standing.best_step for standing in loop.state.standings],
        "losses": [float(mean(map(float, each))) for each in zip(*loop.state.losses[-20:], strict=True)],
        **measure_prompts(base, rows, loop.state.best).document(),
    }


if __name__ == "__main__":
    main()
