"""The load to make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chorus.errors import InvalidArgumentError
from chorus.routes.inference import Input, Settings

Arrivals = Literal["open", "closed"]
Mix = Literal["uniform", "zipf"]
Route = Literal["generate", "stream", "classify"]

CLASSIFY_SETTINGS = frozenset({"labels", "truncate", "special_tokens", "deadline_seconds", "priority"})
MAX_DURATION_SECONDS = 3600.0
MAX_REQUESTS = 1_000_000
MAX_RATE_PER_SECOND = 100_000.0
MAX_CONCURRENCY = 10_000


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One run. Equal specs send the same requests in the same order; open ones also at the same times.

    Attributes:
        tasks: references, most popular first; None is the base model.
        inputs: inputs to draw from at random.
        route: `stream` is a streamed `generate`.
        settings: settings sent with each request (for `classify`: `labels`, `truncate`, ...).
        arrivals: `open` sends at random (Poisson) times, whatever the server does; `closed` keeps
            `concurrency` requests waiting.
        rate_per_second: mean rate of open arrivals.
        concurrency: requests in flight; exactly so many if closed, at most so many if open (later ones wait,
            and their wait counts).
        mix: `uniform`, or `zipf`, in which the k-th task is asked in proportion to 1 / k ** `zipf_exponent`.
        duration_seconds: no request is sent after this.
        requests: no request is sent after this many.
        drain_seconds: how long to wait for answers after the last request. Requests without an answer then
            are `unfinished`.
        goal_ms: an answer counts for goodput if it took no longer; None counts all.
        seed: decides the arrivals, the mix and the inputs.
    """

    tasks: tuple[str | None, ...]
    inputs: tuple[Input, ...]
    route: Route = "generate"
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrivals: Arrivals = "closed"
    rate_per_second: float = 10.0
    concurrency: int = 8
    mix: Mix = "uniform"
    zipf_exponent: float = 1.0
    duration_seconds: float = 10.0
    requests: int = MAX_REQUESTS
    drain_seconds: float = 30.0
    goal_ms: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = (
            ("duration_seconds", self.duration_seconds, MAX_DURATION_SECONDS),
            ("requests", self.requests, MAX_REQUESTS),
            ("rate_per_second", self.rate_per_second, MAX_RATE_PER_SECOND),
            ("concurrency", self.concurrency, MAX_CONCURRENCY),
        )
        for name, value, most in bounds:
            if not 0 < value <= most:
                raise InvalidArgumentError(
                    f"{name} must be above 0 and at most {most:g}, not {value:g}.", field=name
                )
        if not self.zipf_exponent >= 0 or not self.drain_seconds >= 0:
            raise InvalidArgumentError(
                "zipf_exponent and drain_seconds must be 0 or more.", field="zipf_exponent"
            )
        known = CLASSIFY_SETTINGS if self.route == "classify" else frozenset(Settings.__annotations__)
        unknown = sorted(set(self.settings) - known)
        if unknown:
            raise InvalidArgumentError(
                f"{self.route} has no setting {unknown[0]!r}; it has: {', '.join(sorted(known))}.",
                field="settings",
            )
        if not self.tasks:
            raise InvalidArgumentError("There is no task to ask; name one, or push one first.", field="tasks")
        if not self.inputs:
            raise InvalidArgumentError("There is no input to send.", field="inputs")
