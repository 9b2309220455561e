"""The figures of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chorus.load.outcomes import Recorder
from chorus.load.spec import LoadSpec
from chorus.retries import CallStatistics


def percentile(ascending: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, interpolated between neighbours; NaN if there
    are none.
    """
    if not ascending:
        return math.nan
    place = share * (len(ascending) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (ascending[high] - ascending[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution in milliseconds."""

    p50: float
    p90: float
    p99: float
    mean: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Quantiles | None:
        """The quantiles; None if there are no values."""
        if not seconds:
            return None
        ascending = sorted(value * 1000.0 for value in seconds)
        p50, p90, p99 = (percentile(ascending, share) for share in (0.5, 0.9, 0.99))
        return cls(p50, p90, p99, math.fsum(ascending) / len(ascending), ascending[-1])

    def as_json(self) -> dict[str, float]:
        """The figures, rounded to a microsecond."""
        return {name: round(getattr(self, name), 3) for name in ("p50", "p90", "p99", "mean", "max")}


@dataclass(frozen=True, slots=True)
class Report:
    """What clients noticed.

    Attributes:
        throughput_per_second: answers a second, from the start to the last answer.
        goodput_per_second: answers a second that came within the goal.
        output_tokens_per_second: output tokens of the answers.
        latency: latency of the answers; failures are only in `errors`.
        first_token: from the moment when a request was due to its first token; only for streams.
        errors: failures by code; `unfinished` had no answer when the run ended.
        retries: further attempts of this client after the first ones.
        late: open arrivals that had to wait for a connection.
        unsent: open arrivals that were due but never sent, because every connection stayed busy.
    """

    sent: int
    succeeded: int
    elapsed_seconds: float
    throughput_per_second: float
    goodput_per_second: float
    output_tokens_per_second: float
    latency: Quantiles | None
    first_token: Quantiles | None
    errors: dict[str, int]
    retries: int
    retries_refused_by_budget: int
    late: int
    unsent: int

    def as_json(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return {
            "sent": self.sent,
            "succeeded": self.succeeded,
            "failed": sum(self.errors.values()),
            "elapsed_seconds": round(self.elapsed_seconds, 6),
            "throughput_per_second": round(self.throughput_per_second, 3),
            "goodput_per_second": round(self.goodput_per_second, 3),
            "output_tokens_per_second": round(self.output_tokens_per_second, 3),
            "latency_ms": None if self.latency is None else self.latency.as_json(),
            "first_token_ms": None if self.first_token is None else self.first_token.as_json(),
            "errors": self.errors,
            "retries": self.retries,
            "retries_refused_by_budget": self.retries_refused_by_budget,
            "late": self.late,
            "unsent": self.unsent,
        }


def report_of(spec: LoadSpec, recorder: Recorder, calls: CallStatistics) -> Report:
    """The figures of a run that is over."""
    answered = [outcome for outcome in recorder.outcomes if outcome.code is None]
    goal_seconds = math.inf if spec.goal_ms is None else spec.goal_ms / 1000.0
    good = sum(outcome.seconds <= goal_seconds for outcome in answered)
    per_second = 1.0 / recorder.elapsed_seconds if recorder.elapsed_seconds > 0 else 0.0
    firsts = [outcome.first_token_seconds for outcome in answered if outcome.first_token_seconds is not None]
    return Report(
        sent=recorder.sent,
        succeeded=len(answered),
        elapsed_seconds=recorder.elapsed_seconds,
        throughput_per_second=len(answered) * per_second,
        goodput_per_second=good * per_second,
        output_tokens_per_second=sum(outcome.output_tokens for outcome in answered) * per_second,
        latency=Quantiles.of([outcome.seconds for outcome in answered]),
        first_token=Quantiles.of(firsts),
        errors=dict(sorted(recorder.errors.items())),
        retries=calls.retries,
        retries_refused_by_budget=calls.refused_by_budget,
        late=recorder.late,
        unsent=recorder.unsent,
    )
