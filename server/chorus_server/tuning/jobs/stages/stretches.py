"""What trains together for how long: all of a job, or some trials of its search up to a rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.training.run import TrainingRun


@dataclass(frozen=True, slots=True)
class Stretch:
    """Prompts that train together, from one step to another.

    Attributes:
        name: of the folder of its checkpoints in the job's folder; empty for a whole job.
        places: of its prompts among all that the job trains.
        begin: number of steps that they have done before.
        until: the step after which it ends; None for the end of the recipe.
        tested: places in the run of the prompts that are measured on the test split; None for all.
        trained_before: training steps that the job did before: each step counts once for each prompt.
        steps_of_job: of the whole job; for a search training steps.
    """

    name: str
    places: tuple[int, ...]
    begin: int
    until: int | None
    tested: tuple[int, ...] | None
    trained_before: int
    steps_of_job: int

    @staticmethod
    def whole(run: TrainingRun) -> Stretch:
        """A job that trains all of its prompts from the first step to the last."""
        return Stretch("", tuple(range(len(run.tasks))), 0, None, None, 0, run.recipe.steps)

    def step_of_job(self, step: int) -> int:
        """How far the job is when this has done `step`."""
        return self.training_steps_at(step) if self.name else step

    def training_steps_at(self, step: int) -> int:
        """How many training steps the job has done by then."""
        return self.trained_before + (step - self.begin) * len(self.places)


def groups(members: Sequence[PromptDocument], places: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Prompts that can share every dispatch, in order: those whose recipes agree in what shapes one.

    Args:
        places: of those members that are grouped.
        most: so many at once.
    """
    by_shape: dict[object, list[int]] = {}
    for place in places:
        by_shape.setdefault(members[place].recipe.shape, []).append(place)
    return [
        tuple(alike[start : start + most])
        for alike in by_shape.values()
        for start in range(0, len(alike), most)
    ]
