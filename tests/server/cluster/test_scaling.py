from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chorus_server.cluster.scaling import QueuedWork


def wanted(usage: list[float], queued: list[float], *, held_back: float = 0, units: float = 100) -> int:
    told: dict[str, dict[Any, float]] = {
        "usage": dict(enumerate(usage)),
        "queued_work_units": dict(enumerate(queued)),
    }
    context = SimpleNamespace(
        aggregated_metrics=told,
        current_num_replicas=len(usage),
        total_queued_requests=held_back,
        policy_state={},
    )
    return QueuedWork(units)(context)[0]


@pytest.mark.parametrize(
    ("usage", "queued", "expected"),
    [
        ([0, 0], [0, 0], 0),  # Ray raises it to min_replicas
        ([1, 1], [0, 0], 2),  # full, and nothing waits
        ([1, 1], [50, 50], 3),
        ([1, 1], [120, 90], 5),
        ([0.5, 0.4, 0.1], [0, 0, 0], 1),
        ([0.2], [1], 1),
    ],
)
def test_replicas_that_are_full_and_one_for_what_waits(
    usage: list[float], queued: list[float], expected: int
) -> None:
    assert wanted(usage, queued) == expected


def test_one_more_where_ray_holds_requests_back() -> None:
    assert wanted([0.5, 0.5], [0, 0], held_back=3) == 3
    assert wanted([0.5, 0.5], [0, 0], held_back=0.5) == 1, "control"


def test_nothing_changes_while_no_replica_tells() -> None:
    context = SimpleNamespace(
        aggregated_metrics=None, current_num_replicas=2, total_queued_requests=9.0, policy_state={"a": 1}
    )
    assert QueuedWork()(context) == (2, {"a": 1})


def test_units_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="units is 0"):
        QueuedWork(0)
