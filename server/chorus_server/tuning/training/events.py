"""Events of a training loop: plain data, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["running", "finished", "stopped_early", "diverged"]
"""Of one prompt. `stopped_early`: its metric got no better for a while. `diverged`: its loss is no longer a
number."""


@dataclass(frozen=True, slots=True)
class StepFinished:
    """An optimiser step is done.

    Attributes:
        step: number of steps done so far.
        losses: each prompt's mean cross-entropy per target token; None if it is not finite.
        learning_rates: of each prompt.
        epochs: how often each prompt has seen its train split.
    """

    step: int
    losses: tuple[float | None, ...]
    learning_rates: tuple[float, ...]
    epochs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A prompt was measured.

    Attributes:
        prompt: its place in the job.
        split: `validation`, or `test` for the chosen checkpoint at the end.
        metrics: by name; `mean` chooses the checkpoint.
        best: whether it is the best so far on the validation split.
        seconds: how long the device had worked on the run by then.
    """

    step: int
    prompt: int
    split: Literal["validation", "test"]
    metrics: Mapping[str, float]
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class PromptStopped:
    """A prompt trains no further; the others go on."""

    step: int
    prompt: int
    status: Status
    message: str


TrainingEvent = StepFinished | Evaluated | PromptStopped
