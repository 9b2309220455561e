"""Trials of a sweep together in one batch, beside the same trials one after another, on the base that ships.

    python -m benchmarks.tuning.sweep FOLDER          ten trials of 100 steps on two tasks
    python -m benchmarks.tuning.sweep FOLDER --toy    a try: two trials of four steps on one task

Ten learning rates, as `chorus sweep` would train them: in one run (`together`), or in a run each, with one
program for all (`"together": 1` of a sweep). The two take turns: a round trains a tenth of the steps of
either, so that what else the machine does meets both. Compiling is timed apart, and each way compiles once.
The last loss of each trial is compared: it must be the same within rounding. Needs the data sets of
`$CHORUS_SHARED`. Prints a table, and leaves `sweep.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.tuning.base import Base
from benchmarks.tuning.prompts import SEED, make_job, recipe_for
from benchmarks.tuning.results import DATA, ROOT, save
from benchmarks.tuning.rows import load_rows
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import TuningPrograms, compile_programs
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import shapes_for

TASKS = ("ag_news", "sst2")
RATES = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0)
SHARED = {"prompt_length": 20, "batch_size": 16, "evaluate_every_steps": 100, "checkpoint_every_steps": 1_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    tasks, rates, steps, rounds = (TASKS[1:], RATES[:2], 4, 2) if options.toy else (TASKS, RATES, 100, 10)
    base = Base.load(ROOT / "base_model" / "model")
    found = [compared(base, task, rates, steps, rounds) for task in tasks]
    save(options.folder, "sweep.json", {"machine": machine(), "base": base.fingerprint, "tasks": found})
    print("| task | way | compiling, s | training, s | a round, s | loss differs by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for each in found:
        for way in ("together", "apart"):
            seconds = each[way]["rounds"]
            told = f"{each[way]['compiling']:.1f} | {sum(seconds):.1f} | {median(seconds):.2f}"
            print(f"| {each['task']} | {way} | {told} | {each['largest_difference']:.1e} |")


def compared(base: Base, name: str, rates: Sequence[float], steps: int, rounds: int) -> dict[str, Any]:
    """Both ways on one task, round after round."""
    rows = load_rows(name, DATA)
    recipe = recipe_for(rows.task, {**SHARED, "steps": steps})
    (task,) = make_job(base, rows, [recipe]).tasks
    trials = [replace(task, recipe=recipe.changed(learning_rate=rate)) for rate in rates]
    runs = {
        "together": [TrainingRun(SEED, tuple(trials))],
        "apart": [TrainingRun(SEED, (trial,)) for trial in trials],
    }
    found: dict[str, Any] = {"task": name, "data": rows.digests, "rates": list(rates), "steps": steps}
    loops: dict[str, list[TuningLoop]] = {}
    for way, some in runs.items():
        began = time.perf_counter()
        programs = compiled(base, some[0])
        found[way] = {"compiling": time.perf_counter() - began, "rounds": []}
        loops[way] = [TuningLoop(run, programs, base.vocabulary.decode, tested=()) for run in some]
    for number in range(1, rounds + 1):
        for way in sorted(loops, reverse=bool(number % 2)):
            began = time.perf_counter()
            for loop in loops[way]:
                train_to(loop, steps * number // rounds)
            found[way]["rounds"].append(time.perf_counter() - began)
    together = np.array(loops["together"][0].state.losses)
    apart = np.concatenate([loop.state.losses for loop in loops["apart"]], axis=1)
    return found | {"largest_difference": float(np.abs(together[-1] - apart[-1]).max())}


def compiled(base: Base, run: TrainingRun) -> TuningPrograms:
    """The programs of a run."""
    dropping = run.recipe.dropout_rate > 0
    return compile_programs(base.functions, base.params, shapes_for(run, rungs=3), dropping=dropping)


def train_to(loop: TuningLoop, step: int) -> None:
    """Train until so many steps are done; after the last, the evaluation that it ends with too."""
    last = step >= loop.run.recipe.steps
    while not loop.done if last else loop.state.step < step:
        loop.run_slice(1)


if __name__ == "__main__":
    main()
