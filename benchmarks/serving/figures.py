"""What a part of the benchmark hands back: figures beside their goals, and everything that was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from charts import Chart


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        goal: None where there is nothing to reach.
        at_least: whether the goal is a floor; else it is a ceiling.
    """

    name: str
    value: float
    unit: str = "x"
    goal: float | None = None
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "goal": self.goal,
            "at_least": self.at_least,
            "reached": self.reached,
        }


@dataclass(frozen=True)
class Part:
    """What one part measured.

    Attributes:
        detail: plain data for the result file.
        charts: by the name that the picture's file gets.
    """

    figures: Sequence[Figure]
    detail: dict[str, Any]
    charts: dict[str, Chart] = field(default_factory=dict)


def ceiling(name: str, value: float, goal: float, unit: str = "x") -> Figure:
    """A figure that should not be above its goal."""
    return Figure(name, value, unit, goal, at_least=False)


def percentile(values: Sequence[float], share: float) -> float:
    """Interpolated between neighbours."""
    ascending = sorted(values)
    place = share * (len(ascending) - 1)
    low = int(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (ascending[high] - ascending[low]) * (place - low)


def spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in milliseconds."""
    return {f"p{share}": round(1e3 * percentile(seconds, share / 100), 3) for share in (50, 90, 99)}


def line(figure: Figure) -> str:
    """One row of the table."""
    goal = ""
    if figure.goal is not None:
        sign = ">=" if figure.at_least else "<="
        goal = f"{sign} {figure.goal:g}   {'reached' if figure.reached else 'NOT reached'}"
    return f"  {figure.name:66} {figure.value:10.3f} {figure.unit:11} {goal}"
