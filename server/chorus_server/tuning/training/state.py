"""The state of a run after a number of steps: what the next step depends on, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chorus_server.quality.mistakes import Mistakes
from chorus_server.tuning.training.events import Status
from chorus_server.tuning.training.initialisers import PromptValues
from chorus_server.tuning.training.run import TrainingRun


@dataclass
class PromptProgress:
    """How far one prompt is.

    Attributes:
        status: see `events.Status`.
        best_step, best_metric: of the chosen checkpoint; None before the first evaluation.
        without_better: number of evaluations since the best one.
        evaluations: all of them in order, `{"step", "split", "metrics", "seconds"}` each; see
            `TrainingState.seconds`.
        message: why it stopped, if it did not finish.
        mistakes: of the chosen checkpoint on the validation split; without one, on the test split.
    """

    status: Status = "running"
    best_step: int | None = None
    best_metric: float | None = None
    without_better: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    message: str = ""
    mistakes: Mistakes | None = None


@dataclass
class TrainingState:
    """The state of a run, on the host.

    Attributes:
        step: number of steps done.
        evaluated_step: the last step after which the validation split was measured.
        tested: whether the test split was measured.
        prompts, second_moment, best: [N, P, D] f32.
        losses: f32 [N] for each step done.
        standings: one for each prompt.
        ensemble_metrics: of the prompts' vote on the test split, once it was measured.
        seconds: how long the device has worked on it, evaluations included and interruptions not.
    """

    step: int
    evaluated_step: int
    tested: bool
    prompts: PromptValues
    second_moment: PromptValues
    best: PromptValues
    losses: list[PromptValues]
    standings: list[PromptProgress]
    ensemble_metrics: dict[str, float] | None = None
    seconds: float = 0.0

    @staticmethod
    def start(run: TrainingRun) -> TrainingState:
        """The state before the first step."""
        initial = np.stack([np.asarray(task.initial, np.float32) for task in run.tasks])
        standings = [PromptProgress() for _ in run.tasks]
        return TrainingState(0, 0, False, initial, np.zeros_like(initial), initial.copy(), [], standings)

    def snapshot(self) -> TrainingState:
        """A copy of the state for another thread to write, which the loop does not change any more.

        Entries of lists are shared, since nothing changes them: to copy thousands of evaluations would delay
        the device's thread.
        """
        standings = [replace(each, evaluations=list(each.evaluations)) for each in self.standings]
        return replace(
            self,
            prompts=self.prompts.copy(),
            second_moment=self.second_moment.copy(),
            best=self.best.copy(),
            losses=list(self.losses),
            standings=standings,
        )

    @staticmethod
    def of(chosen: Sequence[tuple[TrainingState, int]]) -> TrainingState:
        """The state of prompts that are trained on together, taken from the runs in which they were so far.

        Args:
            chosen: for each prompt, a state and its place there; the states have done the same steps.
        """
        first = chosen[0][0]
        states = {id(state): state for state, _ in chosen}.values()
        return TrainingState(
            step=first.step,
            evaluated_step=first.evaluated_step,
            tested=False,
            prompts=np.stack([state.prompts[place] for state, place in chosen]),
            second_moment=np.stack([state.second_moment[place] for state, place in chosen]),
            best=np.stack([state.best[place] for state, place in chosen]),
            losses=[
                np.array([state.losses[step][place] for state, place in chosen], np.float32)
                for step in range(first.step)
            ],
            standings=[
                replace(standing, evaluations=list(standing.evaluations))
                for standing in (state.standings[place] for state, place in chosen)
            ],
            seconds=max(state.seconds for state in states),
        )

    @property
    def active(self) -> list[bool]:
        """Which prompts still train."""
        return [standing.status == "running" for standing in self.standings]
