"""How many replicas Ray Serve should run."""

from __future__ import annotations

import math
from typing import Any, Protocol

UNITS = 20_000.0
"""Work units that wait for one more replica: about what one does in two seconds."""


class ScalingContext(Protocol):
    """What is read of Ray's `AutoscalingContext`."""

    aggregated_metrics: dict[str, dict[Any, float]] | None
    current_num_replicas: int
    total_queued_requests: float
    policy_state: dict[str, Any]


class QueuedWork:
    """As many replicas as are full, and one more for every `units` that wait. Ray applies the least and most
    replicas, the delays and the factors of its own `autoscaling_config`.

    Args:
        units: work units (docs/rest.md) that wait, for one more replica.

    Raises:
        ValueError: `units` is not above 0.
    """

    def __init__(self, units: float = UNITS) -> None:
        if not units > 0:
            raise ValueError(f"policy_kwargs: units is {units}. It must be above 0, such as {UNITS:g}.")
        self._units = units

    def __call__(self, context: ScalingContext) -> tuple[int, dict[str, Any]]:
        """How many replicas, and what to remember, which is nothing."""
        told = context.aggregated_metrics or {}
        if "usage" not in told:  # no replica is ready
            return context.current_num_replicas, context.policy_state
        full = sum(told["usage"].values())
        waiting = sum(told.get("queued_work_units", {}).values()) / self._units
        wanted = math.ceil(round(full + waiting, 6))
        if (
            context.total_queued_requests >= 1
        ):  # all replicas have max_ongoing_requests: Ray holds the rest back
            wanted = max(wanted, context.current_num_replicas + 1)
        return wanted, context.policy_state
