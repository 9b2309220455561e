"""The second stage: sizes and programs. What later attempts must keep is stored before the first step."""

from __future__ import annotations

from dataclasses import asdict

from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.sizing import Sizer, Sizes
from chorus_server.tuning.jobs.stages.validate import Validated
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import TrainingRun
from prompts_store.jobs.records import MATRIX_DTYPE


def compile_run(attempt: Attempt, validated: Validated) -> tuple[TrainingRun, TuningPrograms]:
    """Measure how large a dispatch may be, and compile the programs off the device's thread.

    Raises:
        InvalidInputError: see `Sizer.settle`.
    """
    attempt.begin("compiling", validated.warnings)
    prompts = validated.document.prompts

    def compiled(name: str, seconds: float, measuring: bool) -> None:
        attempt.metrics.compiles.seconds.observe(seconds, "tuning")
        data = {"name": name, "seconds": round(seconds, 3), "measuring": measuring}
        attempt.held.tell([("program", data)])

    sizer = Sizer(
        attempt.base,
        validated.run,
        prompts[0].recipe.batch_size,
        attempt.work,
        attempt.config.slice_seconds,
        attempt.config.longest_seconds,
        compiled,
        attempt.interrupt,
    )
    sizes = attempt.settled.get("sizes")
    with attempt.because("tuning"):
        run, programs, found, warnings = sizer.settle(
            prompts[0].recipe.micro_batch_size, Sizes(**sizes) if sizes else None
        )
    attempt.progress["settled"] = {
        MATRIX_DTYPE: attempt.base.matrix_dtype,
        "sizes": asdict(found),
        "initial_prompts": [prompt.initial_prompt for prompt in prompts],
    }
    attempt.warn(warnings)
    attempt.save_progress()
    return run, programs
