"""Everything that decides the numbers of a run, declared once: options, model card and resuming read this
table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from chorus_server.errors import InvalidInputError

Objective = Literal["span_corruption", "prefix_lm", "examples"]
Optimiser = Literal["adafactor", "adamw"]
Schedule = Literal["rsqrt", "constant"]
PretrainingAttention = Literal["dense", "fused", "cudnn"]

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
PRETRAINING_ATTENTIONS: tuple[PretrainingAttention, ...] = get_args(PretrainingAttention)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingSettings:
    """One training run. Frozen, and checked when it is made.

    Attributes:
        objective: what to learn; see `data`.
        input_length: L, tokens in an input row.
        target_length: T, tokens in a target row; only for the `examples` objective, because for the others it
            follows from L.
        noise_density, mean_span_length: for span corruption; the defaults are T5's.
        batch_size: rows in a step.
        micro_batch_size: rows in a device dispatch; divides `batch_size`.
        steps: number of optimiser steps.
        optimiser: all weights train. `adafactor` is T5's: factored, no momentum, clipped at RMS 1.
        parameter_scaling: whether updates are multiplied by a tensor's RMS (at least 1e-3).
        schedule: `rsqrt` is learning_rate / sqrt(max(step, warmup_steps)), T5's pretraining with 1.0.
        learning_rate: see `schedule`.
        warmup_steps: for `rsqrt`, the step until which the rate is level; for `constant`, steps of linear
            warm-up.
        cooldown_steps: number of last steps over which the rate falls to 0, linearly.
        weight_decay: multiplied by the learning rate.
        z_loss: weight of the squared logarithm of the softmax's normaliser.
        seed: seed of weights (if they are made), batches and vocabulary.
        compute_dtype: type in which the model computes; weights, optimiser and loss are float32.
        layout, attention: ways to compute the same numbers; see `model.layout` and `attention`.
        evaluate_batches: micro-batches of the held-out slice in a measurement.
        examples_cap: the most examples of a task that count when tasks are weighed (T5's K).
    """

    objective: Objective = "span_corruption"
    input_length: int = 512
    target_length: int = 64
    noise_density: float = 0.15
    mean_span_length: float = 3.0
    batch_size: int = 128
    micro_batch_size: int = 16
    steps: int = 10_000
    optimiser: Optimiser = "adafactor"
    parameter_scaling: bool = True
    schedule: Schedule = "rsqrt"
    learning_rate: float = 1.0
    warmup_steps: int = 10_000
    cooldown_steps: int = 0
    weight_decay: float = 0.0
    z_loss: float = 1e-4
    seed: int = 0
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    layout: Literal["unrolled", "scanned"] = "unrolled"
    attention: PretrainingAttention = "dense"
    evaluate_batches: int = 8
    examples_cap: int = 65_536

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _BOUNDS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:  # for nan neither is true
                raise refused(name, f"must be from {lowest:g} to {highest:g}, got {str(value)[:80]}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise refused(name, f"must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.batch_size % self.micro_batch_size:
            message = f"must divide --batch-size ({self.batch_size}), got {self.micro_batch_size}"
            raise refused("micro_batch_size", message)
        if self.cooldown_steps > self.steps:
            raise refused(
                "cooldown_steps", f"must be at most --steps ({self.steps}), got {self.cooldown_steps}"
            )

    @property
    def micro_batches(self) -> int:
        """Device dispatches in a step."""
        return self.batch_size // self.micro_batch_size

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return dataclasses.asdict(self)


_COUNT = 1_000_000_000
_BOUNDS: dict[str, tuple[float, float]] = {
    "input_length": (4, 65_536),
    "target_length": (2, 65_536),
    "noise_density": (0.01, 0.5),
    "mean_span_length": (1.0, 100.0),
    "batch_size": (1, 1_000_000),
    "micro_batch_size": (1, 1_000_000),
    "steps": (1, _COUNT),
    "learning_rate": (1e-9, 1e3),
    "warmup_steps": (0, _COUNT),
    "cooldown_steps": (0, _COUNT),
    "weight_decay": (0.0, 1.0),
    "z_loss": (0.0, 1.0),
    "seed": (0, 2**31 - 1),
    "evaluate_batches": (1, 1_000_000),
    "examples_cap": (1, _COUNT),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "objective": OBJECTIVES,
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "attention": PRETRAINING_ATTENTIONS,
    "layout": ("unrolled", "scanned"),
    "compute_dtype": ("float32", "bfloat16"),
}


def option_of(name: str) -> str:
    """The command-line option of a field: `--batch-size`."""
    return "--" + name.replace("_", "-")


def refused(name: str, message: str) -> InvalidInputError:
    """An error that names the option."""
    return InvalidInputError(f"{option_of(name)} {message}", field=name)
