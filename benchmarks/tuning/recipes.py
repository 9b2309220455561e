"""The paper's recipe beside the released code's, on the base that ships: the same seeds on two tasks.

    python -m benchmarks.tuning.recipes FOLDER                 some ten minutes on two quiet cores
    python -m benchmarks.tuning.recipes FOLDER --steps 20      a try

The recipes differ in Adafactor's t and in the reduction of the loss. The third difference, 512 tokens of text
beside the prompt, plays no part: the tasks are those whose texts are short, so that no text is cut by either.
A task's six prompts, three seeds of both recipes, train as one batch: a seed has the same first values, order
of examples and dropout in both. Needs the data sets of `$CHORUS_SHARED`. What is done is kept in FOLDER, a
file for each task and learning rate, and not done again; an interrupted run goes on from its last evaluation.
How busy the machine is changes no accuracy. Prints a table, and leaves `recipes.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.tuning.base import Base
from benchmarks.tuning.measuring import measure_prompts
from benchmarks.tuning.prompts import SEED, make_job
from benchmarks.tuning.results import DATA, ROOT, read, save
from benchmarks.tuning.rows import Rows, load_rows
from benchmarks.tuning.statistics import paired_bootstrap, right
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import compile_programs
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from chorus_server.tuning.training.state import TrainingState

TASKS = ("trec", "sst2")
RECIPES = ("paper", "released")
SEEDS = 3
EVALUATIONS = 6
SHARED = {
    "prompt_length": 20, "batch_size": 16, "max_target_tokens": 16, "checkpoint_every_steps": 1_000_000,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", dest="tasks", action="append", choices=TASKS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", dest="rates", action="append", type=float)
    options = parser.parse_args()
    base, runs = None, []
    for rate in options.rates or (0.3,):
        for task in options.tasks or TASKS:
            file = options.folder / f"{task}-{rate:g}.json"
            if not file.exists():
                base = base or Base.load(ROOT / "base_model" / "model")
                knobs = {**SHARED, "steps": options.steps, "learning_rate": rate}
                save(options.folder, file.name, trained(base, task, knobs, file.with_suffix("")))
            runs.append(json.loads(file.read_text()))
    save(options.folder, "recipes.json", {"machine": machine(), "runs": runs})
    print("| task | learning rate | recipe | each | mean ± sd | last loss | released less paper |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for run in runs:
        for line in lines(run):
            print(f"| {' | '.join(line)} |")


def trained(base: Base, task: str, knobs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Three prompts of each recipe, measured on rows that nothing was chosen on."""
    rows = load_rows(task, DATA)
    every = max(1, knobs["steps"] // EVALUATIONS)
    recipes = [
        Recipe.from_json({**knobs, "defaults": name, "evaluate_every_steps": every}) for name in RECIPES
    ]
    prompts = [each for recipe in recipes for each in make_job(base, rows, [recipe] * SEEDS).tasks]
    run = TrainingRun(SEED, tuple(prompts))
    began = time.process_time()
    state = finished(base, run, folder)
    spent = time.process_time() - began
    return {
        "task": task,
        "learning_rate": knobs["learning_rate"],
        "base": base.fingerprint,
        "data": rows.digests,
        "longest_input": max(len(example.input_ids) for each in run.tasks for example in each.train),
        "cpu_seconds": round(spent, 1),
        "recipes": [
            found(base, rows, state, recipe, name, slice(place * SEEDS, (place + 1) * SEEDS))
            for place, (name, recipe) in enumerate(zip(RECIPES, recipes, strict=True))
        ],
    }


def finished(base: Base, run: TrainingRun, folder: Path) -> TrainingState:
    """The state at the end of a run, begun anew or gone on with."""
    dropping = run.recipe.dropout_rate > 0
    programs = compile_programs(base.functions, base.params, shapes_for(run, rungs=3), dropping=dropping)
    state = checkpoint.read_state(folder, run) or TrainingState.start(run)
    loop = TuningLoop(
        run, programs, base.vocabulary.decode, state, lambda now: checkpoint.write_state(folder, run, now)
    )
    while not loop.done:
        told = loop.state.evaluated_step
        loop.run_slice(1)
        if loop.state.evaluated_step != told:
            best = [round(each.best_metric or 0, 3) for each in loop.state.standings]
            print(f"step {loop.state.step}: best so far {best}", flush=True)
    return loop.state


def found(
    base: Base, rows: Rows, state: TrainingState, recipe: Recipe, name: str, places: slice
) -> dict[str, Any]:
    """What came of the seeds of one recipe."""
    losses, standings = np.array(state.losses)[:, places], state.standings[places]
    tens = [losses[start : start + 10].mean(axis=0, dtype=np.float64) for start in range(0, len(losses), 10)]
    return {
        "recipe": name,
        "knobs": recipe.to_json(),
        "chosen_step": [each.best_step for each in standings],
        "losses_each_10_steps": [ten.round(4).tolist() for ten in tens],
        "validation": [
            [[each["step"], round(each["metrics"]["mean"], 4)] for each in standing.evaluations]
            for standing in standings
        ],
        **measure_prompts(base, rows, state.best[places]).document(),
    }


def lines(run: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of a task in the table, in points of accuracy: a recipe each, the paper's first."""
    told, hits = [], []
    for each in run["recipes"]:
        points = [100 * seed["accuracy"] for seed in each["report"]]
        hits.append(right([read(text) for text in each["predictions"]], read(each["truth"])))
        shown = " ".join(f"{value:.1f}" for value in points)
        loss = mean(value for ten in each["losses_each_10_steps"][-2:] for value in ten)
        told.append((each["recipe"], shown, f"{mean(points):.1f} ± {stdev(points):.1f}", f"{loss:.3f}"))
    paper, released = hits
    apart = {key: 100 * value for key, value in paired_bootstrap(released, paper).items()}
    difference = f"{apart['difference']:+.1f} [{apart['low']:+.1f}, {apart['high']:+.1f}]"
    return [
        (run["task"], f"{run['learning_rate']:g}", *each, difference if each is told[-1] else "")
        for each in told
    ]


if __name__ == "__main__":
    main()
