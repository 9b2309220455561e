"""Refuses jobs with device dispatches that would take too long: once begun, none can be interrupted.

A server ends itself when a device step exceeds `step_timeout_seconds`, and no job may cause that. A program's
duration is estimated from its operations, as XLA counts them, and from the measured speed of a small program.
Nothing is measured for programs that even the slowest device finishes in time, which are most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.training.programs import TuningPrograms

SLOWEST = {"cpu": 5e9}
"""Operations a second, by platform."""

_SLOWEST_ACCELERATOR = 1e12


def check_durations(programs: TuningPrograms, most: float, speed: Callable[[], float], field: str) -> None:
    """Refuse programs with a dispatch of more than `most` seconds.

    Args:
        speed: measures operations a second; called only if the answer depends on it.
        field: the one that the caller may change, for the error.

    Raises:
        InvalidInputError: `dispatch_too_long`.
    """
    most_operations = max(_operations(programs))
    slowest = SLOWEST.get(jax.default_backend(), _SLOWEST_ACCELERATOR)
    if most_operations <= most * slowest:
        return
    seconds = most_operations / speed()
    if seconds <= most:
        return
    raise InvalidInputError(
        f"A dispatch of this job would take about {seconds:.3g} seconds, and requests would wait for it; "
        f"{most:.3g} is the most here (half of step_timeout_seconds): train fewer prompts in one job, make "
        "inputs (max_input_tokens) or targets shorter, leave out micro_batch_size, or have the operator "
        "leave jobs to a chorus worker.",
        field=field,
        code="dispatch_too_long",
    )


def operations(executable: Any) -> float:
    """Floating-point operations of one dispatch, of one device where it is compiled; a loop's body counts
    once."""
    analysis = executable.cost_analysis()
    found = analysis[0] if isinstance(analysis, list) else analysis
    return float((found or {}).get("flops", 0.0))


def _operations(programs: TuningPrograms) -> Iterator[float]:
    yield operations(programs.apply)
    for family in (programs.accumulate, programs.score):
        yield from map(operations, family.values())
    shapes = programs.shapes
    weights = sum(leaf.size for leaf in jax.tree.leaves(programs.params)) / programs.functions.devices
    # Two operations a weight and token, for each turn of the loop.
    turns = 2.0 * weights * shapes.evaluation_rows * shapes.new_tokens
    yield from (operations(each) + turns for each in programs.greedy.values())
