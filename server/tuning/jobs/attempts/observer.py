"""What the service tells whoever counts. Hooks are cheap; `device_slice` runs on the device's thread."""

from __future__ import annotations

from typing import Literal, Protocol

Ending = Literal["succeeded", "failed", "cancelled", "released", "lost"]
"""How an attempt at a job ended. `released`: the process stopped. `lost`: another took the job over."""


class TuningObserver(Protocol):
    """Hooks for metrics."""

    def job_claimed(self) -> None: ...

    def job_ended(self, ending: Ending) -> None: ...

    def step_done(self) -> None:
        """One optimiser step of the job, of all its prompts."""
        ...

    def device_slice(self, seconds: float) -> None: ...

    def checkpoint_written(self) -> None: ...

    def compiled(self, program: str, seconds: float) -> None: ...


class NullTuningObserver:
    """Counts nothing."""

    def job_claimed(self) -> None:
        return None

    def job_ended(self, ending: Ending) -> None:
        return None

    def step_done(self) -> None:
        return None

    def device_slice(self, seconds: float) -> None:
        return None

    def checkpoint_written(self) -> None:
        return None

    def compiled(self, program: str, seconds: float) -> None:
        return None
