"""Part of the last stage: what makes the probabilities of a labelled task mean what they say.

The chosen values score their validation split once more, in slices like training. Nothing of it is kept for a
later attempt, which would find the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from chorus_server.calibration.records import calibration_of
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.training.evaluation import Evaluator
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from prompts_store.records import LEAST_CALIBRATION_ROWS, FittedCalibration

_SLICE_END_SECONDS = 60.0

_Scores = list[list[float]]


def calibrate(
    attempt: Attempt,
    run: TrainingRun,
    programs: TuningPrograms,
    prompts: Any,
    good: Sequence[bool],
) -> list[FittedCalibration | None]:
    """What was fitted to each prompt; None for one that is not good or has no labels, and, with a warning,
    for one whose labels are answered by greedy text or that has too few validation rows.

    Args:
        prompts: the chosen values [N, P, D].
        good: which of them become versions.
    """
    wanted = [ok and task.ranks for ok, task in zip(good, run.tasks, strict=True)]
    attempt.warn(
        f"prompt {place} is not calibrated: its labels are answered by greedy text, and a calibration is "
        "fitted to ranked ones"
        for place, (ok, task) in enumerate(zip(good, run.tasks, strict=True))
        if ok and task.labels and not task.ranks
    )
    enough = [len(task.validation) >= LEAST_CALIBRATION_ROWS for task in run.tasks]
    attempt.warn(
        f"prompt {place} is not calibrated: it has {len(run.tasks[place].validation)} validation rows, and a "
        f"calibration is fitted to {LEAST_CALIBRATION_ROWS} or more"
        for place, (labelled, rows) in enumerate(zip(wanted, enough, strict=True))
        if labelled and not rows
    )
    chosen = [labelled and rows for labelled, rows in zip(wanted, enough, strict=True)]
    if not any(chosen):
        return [None] * len(run.tasks)
    scores = _scored(attempt, run, programs, prompts, chosen)
    return [
        _fitted(attempt, task, found) if on else None
        for task, found, on in zip(run.tasks, scores, chosen, strict=True)
    ]


def _fitted(attempt: Attempt, task: PromptTask, scores: _Scores) -> FittedCalibration | None:
    attempt.interrupt()
    answers = [example.answers[0].strip() for example in task.validation]
    places = {label.strip(): place for place, label in enumerate(task.labels)}
    known = [(row, places[answer]) for row, answer in zip(scores, answers, strict=True) if answer in places]
    return calibration_of(
        [row for row, _ in known],
        [place for _, place in known],
        labels=task.labels,
        matrix_dtype=attempt.base.matrix_dtype,
        source={"job": attempt.job.id, "split": "validation"},
    )


def _scored(
    attempt: Attempt, run: TrainingRun, programs: TuningPrograms, prompts: Any, chosen: Sequence[bool]
) -> list[_Scores]:
    """Log probabilities of the labels on each chosen prompt's validation split, by slices on the device."""
    evaluator = Evaluator(run, programs, attempt.base.vocabulary.decode)
    splits = [task.validation if on else () for task, on in zip(run.tasks, chosen, strict=True)]
    found: list[_Scores] = [[[] for _ in split] for split in splits]
    with attempt.because("tuning"):
        values = jnp.asarray(prompts)
    steps = evaluator.score(values, splits, found)

    def piece() -> bool:
        return next(steps, steps) is steps

    work = attempt.work
    work.start(piece)
    try:
        while not work.wait(min(0.5, attempt.config.poll_seconds)):
            attempt.interrupt()
    finally:
        work.stop(_SLICE_END_SECONDS)
    return found
