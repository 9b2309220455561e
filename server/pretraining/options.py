"""The options of `chorus pretrain` and `chorus adapt`, made from the tables behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from server.model.command import DTYPES, Finite, Spelled
from server.pretraining.settings import (
    OBJECTIVES,
    OPTIMISERS,
    SCHEDULES,
    PretrainingSettings,
    option_of,
)

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

_SETTINGS_HELP: dict[str, str] = {
    "objective": "What is learned: T5's span corruption, the LM objective, or supervised examples.",
    "input_length": "Tokens of an input row. Span corruption: 512 gives targets of 114.",
    "target_length": "Tokens of a target row; --objective examples only.",
    "noise_density": "Share of a text that span corruption takes away.",
    "mean_span_length": "Tokens of a corrupted span, on average.",
    "batch_size": "Rows a step.",
    "micro_batch_size": "Rows a device dispatch; divides --batch-size. Memory grows with it.",
    "steps": "Optimiser steps in all.",
    "optimiser": "adafactor is T5's.",
    "parameter_scaling": "Multiply updates by the size of what they change.",
    "schedule": "rsqrt: learning rate / sqrt(max(step, warm-up)). constant: after a linear warm-up.",
    "learning_rate": "See --schedule.",
    "warmup_steps": "See --schedule.",
    "cooldown_steps": "Over the last so many steps the learning rate falls to 0.",
    "weight_decay": "Times the learning rate.",
    "z_loss": "Weight of the squared log of the softmax's normaliser.",
    "seed": "Of weights, vocabulary and batches.",
    "compute_dtype": "Of the model; weights, optimiser and loss are f32.",
    "layout": "unrolled: faster. scanned: less memory and compile time, layers are computed twice.",
    "attention": "xla: everywhere. fused: JAX's own. cudnn: NVIDIA GPUs, bf16.",
    "evaluate_batches": "Micro-batches of the held-out slice that a measurement takes.",
    "examples_cap": "Most examples of a task that count when tasks are weighed.",
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "objective": OBJECTIVES, "optimiser": OPTIMISERS, "schedule": SCHEDULES,
    "layout": ("unrolled", "scanned"),
}  # fmt: skip


# A run is known by the values, so these stay; the options are spelled as those of serving.
ATTENTIONS = {"xla": "dense", "fused": "fused", "cudnn": "cudnn"}
_SPELLED = {"compute_dtype": Spelled(DTYPES), "attention": Spelled(ATTENTIONS)}


def settings_options(defaults: Mapping[str, Any]) -> Decorator:
    """One option a field of `PretrainingSettings`; `defaults` replaces some of their defaults."""
    options = []
    for field in dataclasses.fields(PretrainingSettings):
        default = defaults.get(field.name, field.default)
        names = [option_of(field.name)]
        kind: Any = click.Choice(_CHOICES[field.name]) if field.name in _CHOICES else type(default)
        if field.name in _SPELLED:
            kind = _SPELLED[field.name]
            default = kind.spelling(default)
        if kind is bool:
            names = [f"{names[0]}/--no-{names[0][2:]}"]
        text = _SETTINGS_HELP[field.name]
        options.append(
            click.option(*names, field.name, type=kind, default=default, show_default=True, help=text)
        )
    return _together(options)


def text_options(command: Callable[..., None]) -> Callable[..., None]:
    """What to read."""
    file = click.Path(dir_okay=False, path_type=Path)
    return _together([
        click.option("--corpus", type=file, multiple=True,
            help="Text, .gz or not: a paragraph a line, a blank line between books. May be repeated."),
        click.option("--tokens", type=click.Path(file_okay=False, path_type=Path),
            help="Folder of token files. Default: FOLDER/tokens, made from --corpus once."),
        click.option("--held-out-share", type=Finite(0, 0.5), default=0.005, show_default=True,
            help="Share of the books that is only measured on."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Training text, at most."),
    ])(command)  # fmt: skip


def architecture_options(command: Callable[..., None]) -> Callable[..., None]:
    """A T5 1.1 of any size, and its vocabulary."""
    at_least_one = click.IntRange(min=1)

    def size(name: str, default: int, text: str) -> Decorator:
        return click.option(name, type=at_least_one, default=default, show_default=True, help=text)

    return _together([
        size("--d-model", 256, "Width of the model."),
        size("--d-ff", 640, "Width of the feed-forward."),
        size("--num-heads", 4, "Attention heads."),
        size("--d-kv", 64, "Width of a head."),
        size("--encoder-layers", 4, "Layers of the encoder."),
        size("--decoder-layers", 4, "Layers of the decoder."),
        click.option("--pieces", type=click.IntRange(300, 65_000), default=8_000, show_default=True,
            help="Pieces of the vocabulary; 100 sentinels come on top. Or put a spiece.model into FOLDER."),
        click.option("--vocabulary-characters", type=at_least_one, default=20_000_000, show_default=True,
            help="Text that the vocabulary is made from."),
    ])(command)  # fmt: skip


def cadence_options(command: Callable[..., None]) -> Callable[..., None]:
    """How often things happen."""
    return _together([
        click.option("--report-every-steps", type=click.IntRange(min=1), default=10, show_default=True,
            help="A line of progress and of the curve."),
        click.option("--evaluate-every-steps", type=click.IntRange(min=0), default=500, show_default=True,
            help="Measure the held-out slice; 0 only at the end."),
        click.option("--checkpoint-every-steps", type=click.IntRange(min=0), default=0, show_default=True,
            help="Write a checkpoint; 0 leaves it to the minutes."),
        click.option("--checkpoint-every-minutes", type=Finite(min=0), default=5.0,
            show_default=True, help="Write a checkpoint; 0 leaves it to the steps."),
        click.option("--max-minutes", type=Finite(min=0),
            help="Save and stop after so long; the same command goes on."),
    ])(command)  # fmt: skip


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The rest."""
    return _together([
        click.option("--name", default="", help="What to call the model."),
        click.option("--data-licence", default="", help="What the text's terms are, for the model card."),
        click.option("--model-devices", type=click.IntRange(min=1), default=1, show_default=True,
            help="Devices that share each weight; the others share the rows of a batch."),
        click.option("--background-checkpoints/--no-background-checkpoints", default=True, show_default=True,
            help="Write checkpoints while training goes on."),
    ])(command)  # fmt: skip


def _together(options: Sequence[Decorator]) -> Decorator:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
