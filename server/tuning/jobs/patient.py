"""The store as a job uses it: each call is asked again while the store does not answer."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, cast

from server.tuning.jobs.held import HeldJob
from server.tuning.jobs.preparing import PromptReader
from server.tuning.jobs.publishing import PromptPublisher


class JobPrompts(PromptReader, PromptPublisher, Protocol):
    """The part of `PromptStore` that a job's prompts come from and go to."""


def patient(store: JobPrompts, held: HeldJob) -> JobPrompts:
    """The store, with every call outlasting a short outage: asked again by itself, so that a store that comes
    and goes is got through. Raises as the store does, or LeaseLostError."""
    return cast(JobPrompts, _Patient(store, held))


class _Patient:
    def __init__(self, store: JobPrompts, held: HeldJob) -> None:
        self._store = store
        self._held = held

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            return self._held.asking(partial(method, *args, **kwargs))

        return ask
