"""The recipe of tuning: every knob of Lester et al. 2021 (section 3.1, Table 6), with the paper's defaults.

Table 6 lists the values the authors searched: learning rate 0.001 to 0.5, parameter scaling, batch 32 to 512,
10,000 to 30,000 steps, warm-up 2,000 or 3,000 steps, decay by 0.1 or 0.5 each 4,000, 6,000 or 8,000 steps.
The z-loss and the dropout are those of the released code (google-research/prompt-tuning), which differs from
the paper in three knobs more: see `RELEASED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.fields import DocumentModel, TextList

Initialiser = Literal["class_labels", "sampled_vocabulary", "uniform", "text", "words", "existing_prompt"]

RELEASED: Mapping[str, Any] = MappingProxyType(
    {"max_text_tokens": 512, "second_moment_steps_before": 1_100_000, "loss_reduction": "sum"}
)
"""Knobs of the released code that have other values than the paper's. Its inputs have 512 tokens of text, and
the prompt comes on top; it restores the optimiser's step with the base model, which was adapted for 100,000
steps after a million; and its loss is a sum, as T5X has it."""

SENTINEL_SETTING = "sentinel_before_target"
"""In a version's settings: its answers follow `<extra_id_0>`."""

SPECIAL_TOKENS_SETTING = "special_tokens"
"""In a version's settings: `<extra_id_N>` in its template, inputs and targets is a sentinel."""

TRUNCATION_SETTING = "truncation"
"""In a version's settings: which field of a text that is too long is cut, and on which side."""

NORMALIZER_SETTING = "normalizer"
"""In a version's settings: how the fields of its template are rewritten before the text is made."""

SHARED = (
    "steps",
    "batch_size",
    "micro_batch_size",
    "prompt_length",
    "z_loss",
    "dropout_rate",
    "evaluate_every_steps",
    "checkpoint_every_steps",
)
"""Knobs that all prompts of a job must share, because they shape the dispatch."""

_COUNT = 100_000_000


class Recipe(DocumentModel):
    """The knobs of one prompt's tuning."""

    defaults: Literal["paper", "released"] = Field(
        "paper",
        exclude_if=lambda name: name == "paper",
        description="Where knobs that are left out have their values from: the paper (and this table), or "
        "the released code, which has `max_text_tokens` 512, `second_moment_steps_before` 1,100,000 and "
        "`loss_reduction` `sum`. They are written out when the job is created.",
    )
    steps: int = Field(30_000, ge=1, le=_COUNT, description="The most optimiser steps.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Examples of this prompt in a step.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Examples of this prompt in a device dispatch; divides `batch_size`. When left out, it "
        "is measured when the job is prepared, and then fixed, because sums depend on it.",
    )
    prompt_length: int = Field(100, ge=1, le=4_096, description="Rows of the prompt.")
    initialiser: Initialiser = Field(
        default_factory=lambda: "class_labels",
        description="Where the first values come from. When left out: `existing_prompt` with an "
        "`initial_prompt`, `text` with an `initialiser_text`, `words` with `initialiser_words`, "
        "`class_labels` with labels, else `sampled_vocabulary`.",
    )
    initialiser_text: str | None = Field(
        None, description="The text of the `text` initialiser, which gives each of its tokens a row."
    )
    initialiser_words: TextList | None = Field(
        None,
        exclude_if=lambda words: words is None,  # checkpoints of before it are of recipes without it
        description="The words of the `words` initialiser, which gives each a row, the mean of its tokens, "
        "as `class_labels` does: the paper's choice for ReCoRD and WSC, which have no labels.",
    )
    sampled_pieces: int = Field(
        5_000, ge=1, le=_COUNT, description="How many of the most common pieces the initialiser samples from."
    )
    learning_rate: float = Field(
        0.3, ge=1e-12, le=1e6, description="Learning rate after warm-up and before decay."
    )
    parameter_scaling: bool = Field(
        False, description="Multiply updates by the root mean square of the prompt (1e-3 at least)."
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        le=_COUNT,
        description="Steps of linear warm-up from zero, the first of which only decays weights; 0 is none.",
    )
    decay_factor: float = Field(
        1.0,
        ge=1e-6,
        le=1.0,
        description="Every `steps_per_decay` steps the learning rate is multiplied by it; 1 is no decay.",
    )
    steps_per_decay: int = Field(
        0, ge=0, le=_COUNT, description="Steps from one decay to the next; 0 is no decay."
    )
    weight_decay: float = Field(
        1e-5,
        ge=0,
        le=0.999,
        description="Share of each value that a step takes away; not multiplied by the learning rate.",
    )
    second_moment_decay: float = Field(
        0.8, ge=0.01, le=1, description="Exponent c of beta2(t) = 1 - t^-c, where t counts steps."
    )
    second_moment_steps_before: int = Field(
        0,
        ge=0,
        le=_COUNT,
        description="Steps that t counts as done before the first. The released code goes on counting from "
        "the base model's own training (about 1,100,000); 0 starts anew.",
    )
    clip_rms: float = Field(
        1.0, ge=1e-6, le=1e6, description="Updates of a prompt have at most this root mean square."
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        "mean",
        exclude_if=lambda how: how == "mean",
        description="The loss of a step: the mean over its target tokens, or their sum, so that batches with "
        "more tokens weigh more.",
    )
    z_loss: float = Field(
        1e-4, ge=0, le=1, description="Weight of the squared logarithm of the softmax's normaliser."
    )
    dropout_rate: float = Field(0.1, ge=0, le=0.9, description="Dropout in the frozen model during training.")
    sentinel_before_target: bool = Field(
        False,
        description="Put `<extra_id_0>` before every target, as the base model saw in span corruption "
        "(section 2.2).",
    )
    special_tokens: bool = Field(
        False,
        exclude_if=lambda asked: not asked,  # checkpoints of before it are of recipes without it
        description="`<extra_id_0>` and so on in the template, texts and targets are sentinels; the version "
        "then has the setting `special_tokens`.",
    )
    max_input_tokens: int = Field(
        512,
        ge=1,
        le=65_536,
        description="Longest input with prompt and `</s>`; longer text is cut.",
    )
    max_text_tokens: int | None = Field(
        None,
        ge=2,
        le=65_536,
        exclude_if=lambda most: most is None,
        description="Longest text with `</s>`, the prompt not counted; `max_input_tokens` then has no say.",
    )
    max_target_tokens: int = Field(
        64, ge=1, le=4_096, description="Longest target with `</s>`; longer ones are refused."
    )
    evaluate_every_steps: int = Field(
        1_000, ge=1, le=_COUNT, description="How often the metric is measured on the validation split."
    )
    checkpoint_every_steps: int = Field(
        100, ge=1, le=_COUNT, description="How often the job's state is written; also after each evaluation."
    )
    early_stopping_evaluations: int = Field(
        0,
        ge=0,
        le=_COUNT,
        description="Stop after this many evaluations without a better metric; 0 never stops.",
    )

    @staticmethod
    def from_json(document: Any) -> Recipe:
        """The inverse of `to_json`. Fields that are left out get their defaults.

        Raises:
            InvalidInputError: see `read` and `check`.
        """
        recipe = Recipe.read(document, "recipe").completed()
        recipe.check()
        return recipe

    def completed(self) -> Recipe:
        """The recipe with the knobs of `RELEASED` written out, if it asks for them."""
        if self.defaults == "paper":
            return self
        named = {name: value for name, value in RELEASED.items() if not self.sent(name)}
        return self.model_copy(update={**named, "defaults": "paper"})

    @property
    def text_tokens(self) -> int:
        """Longest text with `</s>`, the prompt not counted."""
        return self.max_text_tokens or self.max_input_tokens - self.prompt_length

    def changed(self, **knobs: Any) -> Recipe:
        """The recipe with other values, checked as if it had been sent."""
        return Recipe.from_json(self.to_json() | knobs)

    def check(self) -> None:
        """Refuse knobs that do not go together.

        Raises:
            InvalidInputError: `field` is `recipe.` and the knob at fault.
        """
        if (self.initialiser == "text") != (self.initialiser_text is not None):
            _refuse("initialiser_text", "goes with the initialiser 'text', and only with it")
        if (self.initialiser == "words") != bool(self.initialiser_words):
            _refuse("initialiser_words", "goes with the initialiser 'words', and only with it")
        if self.batch_size % (self.micro_batch_size or self.batch_size):
            message = f"must divide batch_size ({self.batch_size}), got {self.micro_batch_size}"
            _refuse("micro_batch_size", message)
        if (self.decay_factor == 1.0) != (self.steps_per_decay == 0):
            message = "goes with decay_factor: give both, or neither (1 and 0) for a constant learning rate"
            _refuse("steps_per_decay", message)
        if self.special_tokens and self.sentinel_before_target:
            message = "has no use beside special_tokens: write <extra_id_0> into the targets"
            _refuse("sentinel_before_target", message)
        if self.text_tokens < 2:
            message = f"must leave room for text and </s> after {self.prompt_length} prompt tokens"
            _refuse("max_input_tokens", message)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Values of the knobs that prompts which train together must share."""
        return tuple(getattr(self, name) for name in SHARED)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step (0, 1, ...): linear warm-up from zero, times a factor for every
        `steps_per_decay` steps."""
        rate = self.learning_rate
        if self.warmup_steps:
            rate *= min(1.0, step / self.warmup_steps)
        if self.steps_per_decay:
            rate *= self.decay_factor ** (step // self.steps_per_decay)
        return rate


def _refuse(name: str, message: str) -> None:
    raise InvalidInputError(f"{name} {message}", field=f"recipe.{name}")
