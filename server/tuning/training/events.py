"""What a loop tells while it runs: plain data, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["running", "finished", "stopped_early", "diverged"]
"""Of one prompt. `stopped_early`: no better metric for a while. `diverged`: its loss is no longer a
number."""


@dataclass(frozen=True, slots=True)
class StepFinished:
    """One optimiser step is done.

    Attributes:
        step: how many steps are done.
        losses: mean cross-entropy a target token of each prompt; None where it is not a finite number.
        learning_rates: of each prompt.
        epochs: how many times each prompt has seen its train split.
    """

    step: int
    losses: tuple[float | None, ...]
    learning_rates: tuple[float, ...]
    epochs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One prompt was measured.

    Attributes:
        prompt: its place in the job.
        split: `validation`, or `test` for the chosen checkpoint at the end.
        metrics: by name; `mean` is the one that chooses.
        best: whether this is the best so far on the validation split.
    """

    step: int
    prompt: int
    split: Literal["validation", "test"]
    metrics: Mapping[str, float]
    best: bool


@dataclass(frozen=True, slots=True)
class PromptStopped:
    """One prompt trains no further; the others go on."""

    step: int
    prompt: int
    status: Status
    message: str


TrainingEvent = StepFinished | Evaluated | PromptStopped
