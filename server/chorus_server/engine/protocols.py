"""What the parts of the engine expect of each other. Each protocol has a real implementation, and one in
memory for tests."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from chorus_server.engine.plans import Ladder, StepPlan, StepResult


class PromptSource(Protocol):
    """Where prompt values come from if no tier has them: the store, as a function of the digest."""

    def fetch(self, digest: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The `[P, D]` f32 values, checked against the digest. May block on disk or network, so the engine's
        thread never calls it.

        Raises:
            ChorusError: the prompt is gone or damaged; only the requests for it fail.
        """
        ...


class HostPrompts(Protocol):
    """The host tier as an executor sees it. The scheduler makes sure that values are present before it plans
    a load."""

    def values(self, digest: str) -> np.ndarray[Any, Any]:
        """The `[P, D]` values in the compute dtype. Raises KeyError if they are absent, which is a defect of
        the scheduler."""
        ...


class PendingStep(Protocol):
    """A dispatched step whose result has not been read."""

    @property
    def plan(self) -> StepPlan: ...


class Executor(Protocol):
    """Owns the device: plan in, tokens out. It has no clock and decides nothing. Used from one thread."""

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
        """Start a step on the device and return at once. It sees the state that earlier plans leave."""
        ...

    def collect(self, pending: PendingStep) -> StepResult:
        """Wait for a step and read its result. Steps are collected in the order in which they were
        dispatched."""
        ...


class BackgroundWork(Protocol):
    """Work on the device that serves no request, such as training. Called on the engine's thread."""

    def wants_slice(self) -> bool:
        """Whether there is something to do now. It is cheap to ask. Code that makes this true calls
        `Engine.wake`."""
        ...

    def run_slice(self) -> None:
        """Do one piece of work of bounded time. When it returns, nothing of it runs on the device any more.

        It handles its own errors: if it raises, the work ends and the engine goes on.
        """
        ...
