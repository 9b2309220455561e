"""Everything that is decided before a base is made, in one JSON document."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("collect", "pretrain", "adapt", "mix", "store", "tune", "baselines", "figure", "package")


@dataclass(frozen=True)
class Plan:
    """How a base is made.

    Attributes:
        name: name of the model.
        architecture: fields of `T5Config`, without vocabulary sizes.
        pieces: pieces in the vocabulary.
        pretrain, adapt, mix: fields of `PretrainingSettings`. An empty `mix` skips that stage.
        fractions: percentages of the adaptation, above 0, at which the model is kept, for figure 3(d).
        tasks: datasets to collect: those that ship, and those that the mixture sees; see `tasks.collect`.
        leave_out: tasks that the mixture does not see and that are reported separately.
        dtype: type of the shipped weights: int8, bfloat16 or float32.
        recipe: fields of `tuning.document.recipe.Recipe`.
        recipes: by task, fields that differ from `recipe`.
        seeds: number of prompts for each task.
        selection_share: share of a train split that chooses the checkpoint.
        figure: fields of the recipe for figures 3(c) and 3(d). If empty, that stage is skipped.
        figure_tasks: tasks of those figures.
        figure_recipes: by task, fields that differ from `figure`.
    """

    name: str = "chorus-base"
    architecture: dict[str, int] = field(
        default_factory=lambda: {
            "d_model": 384, "d_kv": 64, "d_ff": 960, "num_heads": 6, "num_encoder_layers": 4,
            "num_decoder_layers": 4,
        }
    )  # fmt: skip
    pieces: int = 8_000
    pretrain: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 20_000,
            "batch_size": 64,
            "warmup_steps": 2_000,
            "cooldown_steps": 2_000,
        }
    )
    adapt: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 3_000,
            "batch_size": 32,
            "learning_rate": 0.003,
            "cooldown_steps": 600,
        }
    )
    mix: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 3_000, "batch_size": 16, "learning_rate": 0.002, "cooldown_steps": 600,
            "input_length": 256, "target_length": 64, "examples_cap": 16_384,
        }
    )  # fmt: skip
    fractions: tuple[float, ...] = (10.0, 30.0)
    tasks: tuple[str, ...] = ("sentiment", "question", "subjectivity", "entailment", "banking")
    leave_out: tuple[str, ...] = ("question", "subjectivity")
    dtype: str = "int8"
    recipe: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 3_000, "batch_size": 16, "micro_batch_size": 8, "prompt_length": 50,
            "max_input_tokens": 192, "max_target_tokens": 16, "evaluate_every_steps": 500,
            "early_stopping_evaluations": 4,
        }
    )  # fmt: skip
    recipes: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "banking": {"max_target_tokens": 32},
            "entailment": {"max_input_tokens": 256},
        }
    )
    seeds: int = 3
    selection_share: float = 0.05
    figure: dict[str, Any] = field(default_factory=dict)
    figure_tasks: tuple[str, ...] = ("sentiment",)
    figure_recipes: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_plan(path: Path | None) -> Plan:
    """The default plan, with a file's fields in place of its own. An unknown field is an error."""
    if path is None:
        return Plan()
    fields = json.loads(path.read_text())
    known = {each.name for each in dataclasses.fields(Plan)}
    if unknown := sorted(set(fields) - known):
        raise SystemExit(
            f"{path.name} has unknown field {unknown[0]}; it may have {', '.join(sorted(known))}"
        )
    return Plan(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    )


def write_document(path: Path, document: Any) -> None:
    """Write JSON that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)
