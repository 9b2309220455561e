"""The second stage: sizes and programs. What later attempts must keep is stored before the first step."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.sizing import Sizer, Sizes
from chorus_server.tuning.jobs.stages.validate import Validated
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import TrainingRun
from prompts_store.jobs.records import MATRIX_DTYPE


def compile_run(
    attempt: Attempt,
    validated: Validated,
    stretch: str = "",
    sizes: Sizes | None = None,
    known: dict[Any, Any] | None = None,
) -> tuple[TrainingRun, TuningPrograms]:
    """Measure how large a dispatch may be, and compile the programs off the device's thread.

    Args:
        validated: with the members that train together.
        stretch: name of what is compiled for; see `Stretch`.
        sizes: to take unless an earlier attempt settled others.
        known: see `Sizer`.

    Raises:
        InvalidInputError: see `Sizer.settle`.
    """
    attempt.begin("compiling", validated.warnings)
    recipe = validated.members[0].recipe

    def compiled(name: str, seconds: float, measuring: bool) -> None:
        attempt.metrics.compiles.seconds.observe(seconds, "tuning")
        data = {"name": name, "seconds": round(seconds, 3), "measuring": measuring}
        attempt.held.tell([("program", data)])

    sizer = Sizer(
        attempt.base,
        validated.run,
        recipe.batch_size,
        attempt.work,
        attempt.config.slice_seconds,
        attempt.config.longest_seconds,
        compiled,
        attempt.interrupt,
        {} if known is None else known,
    )
    with attempt.because("tuning"):
        run, programs, found, warnings = sizer.settle(
            recipe.micro_batch_size, settled_sizes(attempt, stretch) or sizes
        )
    by_stretch = {**attempt.settled.get("sizes_by_stretch", {}), stretch: asdict(found)}
    attempt.progress["settled"] = {
        **attempt.settled,
        MATRIX_DTYPE: attempt.base.matrix_dtype,
        **({"sizes_by_stretch": by_stretch} if stretch else {"sizes": asdict(found)}),
        "initial_prompts": [prompt.initial_prompt for prompt in validated.document.prompts],
    }
    attempt.warn(warnings)
    attempt.save_progress()
    return run, programs


def settled_sizes(attempt: Attempt, stretch: str) -> Sizes | None:
    """The sizes that an earlier attempt, or an earlier part of this one, settled for a stretch."""
    settled = attempt.settled
    found = settled.get("sizes_by_stretch", {}).get(stretch) if stretch else settled.get("sizes")
    return Sizes(**found) if found else None
