"""One run of prompt tuning: N seeds of one task as one job, resumable, its report with every answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.tuning.base import Base
from benchmarks.tuning.measuring import measure_prompts
from benchmarks.tuning.results import DATA, PARTS, load, save
from benchmarks.tuning.rows import Rows, load_rows
from benchmarks.tuning.tasks import Task
from chorus_server.tuning.data.examples import make_examples, target_ids
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.events import Evaluated, StepFinished
from chorus_server.tuning.training.initialisers import PromptValues, initial_prompt
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import compile_programs
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from chorus_server.tuning.training.state import TrainingState

SEED = 1
SLICE = 4


def make_job(base: Base, rows: Rows, recipes: Sequence[Recipe]) -> TrainingRun:
    """One prompt a recipe; they differ by index alone when the recipes are equal."""
    task = rows.task
    tasks = []
    for index, recipe in enumerate(recipes):
        train, _ = make_examples(rows.train.rows, base.vocabulary, recipe)
        selection, _ = make_examples(rows.selection.rows, base.vocabulary, recipe)
        alike = sorted(selection, key=lambda example: len(example.input_ids))  # little padding a dispatch
        labels = () if task.greedy else task.labels
        tasks.append(
            PromptTask(
                index=index,
                recipe=recipe,
                initial=initial_prompt(recipe, base.source, SEED, index, labels=task.labels),
                train=train,
                validation=alike,
                metrics=task.metrics,
                labels=labels,
                label_ids=tuple(target_ids(label, base.vocabulary, recipe) for label in labels),
            )
        )
    return TrainingRun(SEED, tuple(tasks))


def recipe_for(task: Task, overrides: dict[str, Any]) -> Recipe:
    """The recipe of a run: the plan's fields over the task's lengths."""
    length = int(overrides.get("prompt_length", 20))
    wanted = {"max_input_tokens": length + task.text_tokens + 1, "max_target_tokens": 16, **overrides}
    return Recipe.from_json({"prompt_length": length, **wanted})


def recipes_of(run: dict[str, Any], task: Task) -> list[Recipe]:
    """One a prompt of the run."""
    return [recipe_for(task, fields) for fields in run.get("recipes") or [run["recipe"]] * run["seeds"]]


def first_values(base: Base, run: dict[str, Any]) -> list[PromptValues]:
    """What the prompts of a run were before they were tuned."""
    task = load_rows(run["task"], DATA).task
    return [
        initial_prompt(recipe, base.source, SEED, index, labels=task.labels)
        for index, recipe in enumerate(recipes_of(run, task))
    ]


def run_prompts(base: Base, run: dict[str, Any], say: Any) -> dict[str, Any]:
    """Train (or go on), then measure the chosen prompts on the report split.

    Args:
        run: `name`, `task`, and `recipes`: one mapping a prompt, or `seeds` and one `recipe`.
    """
    rows = load_rows(run["task"], DATA)
    job, state, clock = train_prompts(base, run, say)
    answers = measure_prompts(base, rows, state.best)
    clock.stop()
    return {**_facts(base, rows, job, state), **clock.document(), **answers.document()}


def train_prompts(base: Base, run: dict[str, Any], say: Any) -> tuple[TrainingRun, TrainingState, _Clock]:
    """Train (or go on), and keep the chosen prompts where `trained_prompts` finds them."""
    rows = load_rows(run["task"], DATA)
    job = make_job(base, rows, recipes_of(run, rows.task))
    folder = PARTS / run["name"]
    clock = _Clock(run["name"])
    state = _train(base, job, folder / "checkpoint", clock, say)
    save_file({"prompts": np.ascontiguousarray(state.best)}, folder / "prompts.safetensors")
    return job, state, clock


def trained_prompts(run: str) -> PromptValues:
    """[N, P, D] of a finished run."""
    prompts: PromptValues = load_file(PARTS / run / "prompts.safetensors")["prompts"]
    return prompts


def _train(base: Base, job: TrainingRun, folder: Any, clock: _Clock, say: Any) -> TrainingState:
    shapes = shapes_for(job, rungs=3)
    say(f"  shapes {shapes.input_lengths}, {shapes.prompts * shapes.rows_per_prompt} rows a dispatch")
    programs = compile_programs(base.functions, base.params, shapes, dropping=job.recipe.dropout_rate > 0)
    state = checkpoint.read_state(folder, job) or TrainingState.start(job)
    clock.start(state.step)

    def keep(now: TrainingState) -> None:
        checkpoint.write_state(folder, job, now)
        clock.keep(now.step)

    loop = TuningLoop(job, programs, base.vocabulary.decode, state, keep)
    while not loop.done:
        for event in loop.run_slice(SLICE):
            if isinstance(event, StepFinished) and event.step in (1, 5, 10, 20):
                spent = f"{clock.seconds():.1f} s wall, {clock.cpu():.1f} s CPU"
                say(f"  step {event.step}: {spent}, {event.losses}")
            elif isinstance(event, Evaluated):
                say(
                    f"  {event.step} [{event.prompt}] {event.metrics['mean']:.3f} {'*' if event.best else ''}"
                )
    best = [standing.best_step for standing in loop.state.standings]
    say(f"  finished after {loop.state.step} steps, best of steps {best}")
    return loop.state


def _facts(base: Base, rows: Rows, job: TrainingRun, state: TrainingState) -> dict[str, Any]:
    losses = np.array(state.losses)
    tenth = [
        losses[start : start + 10].mean(axis=0, dtype=np.float64).round(4).tolist()
        for start in range(0, len(losses), 10)
    ]
    return {
        "base": base.name,
        "fingerprint": base.fingerprint,
        "recipes": _shared(job),
        "data": rows.digests,
        "rows": {"train": len(rows.train.rows), "selection": len(rows.selection.rows)},
        "warnings": list(rows.warnings),
        "losses_each_10_steps": tenth,
        "selection": [
            [[each["step"], round(each["metrics"]["mean"], 4)] for each in standing.evaluations]
            for standing in state.standings
        ],
        "chosen_step": [standing.best_step for standing in state.standings],
        "status": [standing.status for standing in state.standings],
    }


def _shared(job: TrainingRun) -> list[dict[str, Any]]:
    """Each recipe once."""
    found: list[dict[str, Any]] = []
    for task in job.tasks:
        document = task.recipe.to_json()
        if document not in found:
            found.append(document)
    return found


class _Clock:
    """Wall and CPU seconds of training, over resumptions."""

    def __init__(self, run: str) -> None:
        before = load(run, "clock.json") or {"wall": 0.0, "cpu": 0.0}
        self._run, self._before = run, before
        self.start(0)

    def start(self, step: int) -> None:
        self._first, self._wall, self._cpu = step, time.perf_counter(), time.process_time()
        self._stopped: tuple[float, float] | None = None

    def seconds(self) -> float:
        return time.perf_counter() - self._wall

    def cpu(self) -> float:
        return time.process_time() - self._cpu

    def keep(self, step: int) -> None:
        save(PARTS / self._run, "clock.json", {"step": step, **self._now()})

    def stop(self) -> None:
        self._stopped = self.seconds(), self.cpu()

    def _now(self) -> dict[str, float]:
        wall, cpu = self._stopped or (self.seconds(), self.cpu())
        return {"wall": self._before["wall"] + wall, "cpu": self._before["cpu"] + cpu}

    def document(self) -> dict[str, Any]:
        return {name + "_seconds": round(value, 1) for name, value in self._now().items()}
