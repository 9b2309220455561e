"""Checks that a job's programs fit into device memory beside what is resident."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.training.programs import TuningPrograms

_STATE_COPIES = 6
"""Of prompts, second moment, best values and gradients; a step holds the last two twice."""


def needed_bytes(programs: TuningPrograms) -> int:
    """Bytes of the job's state and of its largest program's scratch memory, as XLA reports it.

    Serving and training never run at the same time, so their scratch memory is not added up.
    """
    shapes = programs.shapes
    state = _STATE_COPIES * 4 * shapes.prompts * shapes.prompt_length * shapes.width
    return state + max(_temporary_bytes(each) for each in _executables(programs))


def check_memory(programs: TuningPrograms, room: int) -> None:
    """Refuse programs that do not fit.

    Raises:
        InvalidInputError: `memory_plan`; the message says what would fit.
    """
    needed = needed_bytes(programs)
    if needed <= room:
        return
    shapes = programs.shapes
    prompts, length = shapes.prompts * room // needed, shapes.input_lengths[-1] * room // needed
    if prompts >= 1:
        advice = f"about {prompts} prompts in one job would fit"
    elif length > shapes.prompt_length + 1:
        advice = f"inputs of about {length} tokens (max_input_tokens) would fit"
    else:
        advice = "nothing of this kind would fit"
    raise InvalidInputError(
        f"Training {shapes.prompts} prompts with inputs of up to {shapes.input_lengths[-1]} tokens and "
        f"{shapes.rows_per_prompt} examples of each a dispatch needs {_mib(needed)} of device memory, and "
        f"{_mib(room)} are left beside the model and what serves requests: {advice}; or ask the operator for "
        "memory_limit_bytes.",
        field="recipe.max_input_tokens",
        code="memory_plan",
    )


def _executables(programs: TuningPrograms) -> Iterator[Any]:
    yield programs.apply
    for family in (programs.accumulate, programs.score, programs.greedy):
        yield from family.values()


def _temporary_bytes(executable: Any) -> int:
    analysis = executable.memory_analysis()
    temporary = int(getattr(analysis, "temp_size_in_bytes", 0) or 0)
    return temporary + int(getattr(analysis, "output_size_in_bytes", 0) or 0)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
