"""How prompts are tuned: every knob of Lester et al. 2021 (section 3.1, Table 6), with the paper's defaults.

Table 6 lists the values the authors searched: learning rate 0.001 to 0.5, parameter scaling, batch 32 to 512,
10,000 to 30,000 steps, warm-up 2,000 or 3,000 steps, decay by 0.1 or 0.5 each 4,000, 6,000 or 8,000 steps.
The z-loss and the dropout are those of the released code (google-research/prompt-tuning).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from server.errors import InvalidInputError

Initialiser = Literal["class_labels", "sampled_vocabulary", "uniform", "text", "existing_prompt"]
INITIALISERS: tuple[Initialiser, ...] = get_args(Initialiser)

SENTINEL_SETTING = "sentinel_before_target"
"""In a version's settings: it answers after `<extra_id_0>`, and is served so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of one prompt's tuning. Frozen and validated when it is made.

    Attributes:
        steps: optimiser steps, at most.
        batch_size: examples of this prompt a step.
        micro_batch_size: examples of this prompt a device dispatch; divides `batch_size`. Fixed when a job is
            made, because sums depend on it.
        prompt_length: P, rows.
        initialiser: where the first values come from; see `initialisers`.
        initialiser_text: the text of the `text` initialiser.
        sampled_pieces: how many of the commonest pieces sampling draws from.
        learning_rate: after warm-up and before decay.
        parameter_scaling: multiply updates by the prompt's RMS (at least 1e-3).
        warmup_steps: steps of linear warm-up from zero (the first step only decays weights); 0 is none.
        decay_factor: the learning rate is multiplied by it each `steps_per_decay` steps; 1 is no decay.
        steps_per_decay: 0 is no decay.
        weight_decay: share of each value taken away a step; not multiplied by the learning rate.
        second_moment_decay: exponent c of beta2(t) = 1 - t ** -c.
        second_moment_steps_before: steps that t counts as done before the first. The released code goes on
            counting from the base model's own training (about 1,100,000); 0 starts anew.
        clip_rms: updates of a prompt have at most this root mean square.
        z_loss: weight of the squared logarithm of the softmax's normaliser.
        dropout_rate: of the frozen model, while training.
        sentinel_before_target: put `<extra_id_0>` before every target, as the base model saw in span
            corruption (section 2.2).
        max_input_tokens: longest input with prompt and `</s>`; longer text is cut.
        max_target_tokens: longest target with `</s>`; longer ones are refused.
        evaluate_every_steps: how often the metric is measured on the selection split.
        checkpoint_every_steps: how often the job's state is written; also after each evaluation.
        early_stopping_evaluations: stop after so many evaluations without a better metric; 0 never stops.
    """

    steps: int = 30_000
    batch_size: int = 32
    micro_batch_size: int = 8
    prompt_length: int = 100
    initialiser: Initialiser = "class_labels"
    initialiser_text: str | None = None
    sampled_pieces: int = 5_000
    learning_rate: float = 0.3
    parameter_scaling: bool = False
    warmup_steps: int = 0
    decay_factor: float = 1.0
    steps_per_decay: int = 0
    weight_decay: float = 1e-5
    second_moment_decay: float = 0.8
    second_moment_steps_before: int = 0
    clip_rms: float = 1.0
    z_loss: float = 1e-4
    dropout_rate: float = 0.1
    sentinel_before_target: bool = False
    max_input_tokens: int = 512
    max_target_tokens: int = 64
    evaluate_every_steps: int = 1_000
    checkpoint_every_steps: int = 100
    early_stopping_evaluations: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_type(each.name, getattr(self, each.name), str(each.type))
        for name, (lowest, highest) in _BOUNDS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise _refused(name, f"must be from {lowest} to {highest}, got {value}")
        self._check_together()

    def _check_together(self) -> None:
        if self.initialiser not in INITIALISERS:
            raise _refused("initialiser", f"must be one of {', '.join(INITIALISERS)}")
        if (self.initialiser == "text") != (self.initialiser_text is not None):
            raise _refused("initialiser_text", "goes with the initialiser 'text', and only with it")
        if self.batch_size % self.micro_batch_size:
            message = f"must divide batch_size ({self.batch_size}), got {self.micro_batch_size}"
            raise _refused("micro_batch_size", message)
        if (self.decay_factor == 1.0) != (self.steps_per_decay == 0):
            message = "goes with decay_factor: give both, or neither (1 and 0) for a constant learning rate"
            raise _refused("steps_per_decay", message)
        if self.max_input_tokens < self.prompt_length + 2:
            message = f"must leave room for text and </s> after {self.prompt_length} prompt tokens"
            raise _refused("max_input_tokens", message)

    @property
    def micro_batches(self) -> int:
        """Device dispatches a step."""
        return self.batch_size // self.micro_batch_size

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up from zero, then a factor each `steps_per_decay`
        steps."""
        rate = self.learning_rate
        if self.warmup_steps:
            rate *= min(1.0, step / self.warmup_steps)
        if self.steps_per_decay:
            rate *= self.decay_factor ** (step // self.steps_per_decay)
        return rate

    def to_json(self) -> dict[str, Any]:
        """Every field by name, as plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`; fields left out have their defaults.

        Raises:
            InvalidInputError: an unknown field, a wrong type or a value out of range; names the field.
        """
        known = {each.name for each in fields(Recipe)}
        for name in document:
            if name not in known:
                message = f"recipe has no field {ascii(name)[:80]}; it has {', '.join(sorted(known))}"
                raise InvalidInputError(message, field="recipe")
        return Recipe(**document)


_COUNT = 100_000_000
_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, _COUNT),
    "batch_size": (1, 65_536),
    "micro_batch_size": (1, 65_536),
    "prompt_length": (1, 4_096),
    "sampled_pieces": (1, _COUNT),
    "learning_rate": (1e-12, 1e6),
    "warmup_steps": (0, _COUNT),
    "decay_factor": (1e-6, 1.0),
    "steps_per_decay": (0, _COUNT),
    "weight_decay": (0.0, 0.999),
    "second_moment_decay": (0.01, 1.0),
    "second_moment_steps_before": (0, _COUNT),
    "clip_rms": (1e-6, 1e6),
    "z_loss": (0.0, 1.0),
    "dropout_rate": (0.0, 0.9),
    "max_input_tokens": (1, 65_536),
    "max_target_tokens": (1, 4_096),
    "evaluate_every_steps": (1, _COUNT),
    "checkpoint_every_steps": (1, _COUNT),
    "early_stopping_evaluations": (0, _COUNT),
}


def _check_type(name: str, value: Any, declared: str) -> None:
    if declared == "bool":
        fits = isinstance(value, bool)
    elif declared == "int":
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif declared == "float":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and math.isfinite(value)
    elif declared == "str | None":
        fits = value is None or isinstance(value, str)
    else:
        declared, fits = "text", isinstance(value, str)
    if not fits:
        raise _refused(
            name, f"must be a {declared.replace('float', 'finite number')}, got {ascii(value)[:60]}"
        )


def _refused(name: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{name} {message}", field=f"recipe.{name}")
