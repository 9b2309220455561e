"""What the engine's parts expect of each other. Each has a real implementation and an in-memory one for
tests."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from server.engine.plans import Ladder, StepPlan, StepResult


class PromptSource(Protocol):
    """Where prompt values come from when they are in no tier: the store, behind a function of the digest."""

    def fetch(self, digest: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The `[P, D]` f32 values, checked against the digest. May block on disk or network; never called on
        the engine's thread.

        Raises:
            ChorusError: the prompt is gone or damaged; fails its own requests only.
        """
        ...


class HostPrompts(Protocol):
    """The host tier as an executor sees it: values that the scheduler has made present before planning a
    load."""

    def values(self, digest: str) -> np.ndarray[Any, Any]:
        """The `[P, D]` values in the compute dtype. Raises KeyError when absent, which is a scheduler's
        defect."""
        ...


class PendingStep(Protocol):
    """A dispatched step whose result has not been read."""

    @property
    def plan(self) -> StepPlan: ...


class Executor(Protocol):
    """Owns the device: plan in, tokens out. No clock, no decision of its own. Used from one thread."""

    @property
    def ladder(self) -> Ladder: ...

    @property
    def prompt_row_capacity(self) -> int:
        """Rows of the device table."""
        ...

    @property
    def padded_vocab_size(self) -> int:
        """V: prompt row r is id `V + r`."""
        ...

    def dispatch(self, plan: StepPlan) -> PendingStep:
        """Start a step on the device and return at once. It finds what the plans dispatched before leave."""
        ...

    def collect(self, pending: PendingStep) -> StepResult:
        """Wait for a step and read what it produced. Steps are collected in the order dispatched."""
        ...


class BackgroundWork(Protocol):
    """Work on the device that serves no request, such as training. Called on the engine's thread."""

    def wants_slice(self) -> bool:
        """Whether there is something to do now. Cheap; whoever makes it true calls `Engine.wake`."""
        ...

    def run_slice(self) -> None:
        """Do one piece, bounded in time. When it returns, nothing of it runs on the device any more.

        It handles its own errors: one that it raises ends the work, and the engine goes on.
        """
        ...
