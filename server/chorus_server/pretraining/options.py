"""The options of `chorus pretrain` and `chorus adapt`, generated from the tables behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from chorus_server.model.command import DTYPES, Finite, Spelled
from chorus_server.pretraining.settings import (
    OBJECTIVES,
    OPTIMISERS,
    SCHEDULES,
    PretrainingSettings,
    option_of,
)

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

_SETTINGS_HELP: dict[str, str] = {
    "objective": "What to learn: T5's span corruption, the LM objective, or supervised examples.",
    "input_length": "Tokens in an input row. With span corruption, 512 gives targets of 114.",
    "target_length": "Tokens in a target row; only for --objective examples.",
    "noise_density": "Share of a text that span corruption removes.",
    "mean_span_length": "Mean number of tokens in a corrupted span.",
    "batch_size": "Rows in a step.",
    "micro_batch_size": "Rows in a device dispatch; must divide --batch-size. Memory grows with it.",
    "steps": "Number of optimiser steps.",
    "optimiser": "Optimiser; adafactor is T5's.",
    "parameter_scaling": "Multiply updates by the size of the weights that they change.",
    "schedule": "rsqrt: learning rate / sqrt(max(step, warm-up)). constant: level after a linear warm-up.",
    "learning_rate": "See --schedule.",
    "warmup_steps": "See --schedule.",
    "cooldown_steps": "Number of last steps over which the learning rate falls to 0.",
    "weight_decay": "Weight decay; multiplied by the learning rate.",
    "z_loss": "Weight of the squared log of the softmax's normaliser.",
    "seed": "Seed of weights, vocabulary and batches.",
    "compute_dtype": "Type in which the model computes; weights, optimiser and loss are f32.",
    "layout": "unrolled: faster. scanned: less memory and compile time, but layers are computed twice.",
    "attention": "xla: everywhere. fused: JAX's own. cudnn: NVIDIA GPUs, bf16.",
    "evaluate_batches": "Micro-batches of the held-out slice in a measurement.",
    "examples_cap": "Most examples of a task that count when tasks are weighed.",
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "objective": OBJECTIVES, "optimiser": OPTIMISERS, "schedule": SCHEDULES,
    "layout": ("unrolled", "scanned"),
}  # fmt: skip


# A run is identified by the values, so they stay; the options are spelled like those of serving.
ATTENTIONS = {"xla": "dense", "fused": "fused", "cudnn": "cudnn"}
_SPELLED = {"compute_dtype": Spelled(DTYPES), "attention": Spelled(ATTENTIONS)}


def settings_options(defaults: Mapping[str, Any]) -> Decorator:
    """One option for each field of `PretrainingSettings`. `defaults` replaces some of their defaults."""
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
    """Options for the text to read."""
    file = click.Path(dir_okay=False, path_type=Path)
    return _together([
        click.option("--corpus", type=file, multiple=True,
            help="Text file, .gz or not: one paragraph on each line, a blank line between books. Repeat for "
            "more."),
        click.option("--tokens", type=click.Path(file_okay=False, path_type=Path),
            help="Folder of token files. Default: FOLDER/tokens, made once from --corpus."),
        click.option("--held-out-share", type=Finite(0, 0.5), default=0.005, show_default=True,
            help="Share of the books that is only used for measuring."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of training text."),
    ])(command)  # fmt: skip


def architecture_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for a T5 1.1 of any size, and its vocabulary."""
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
            help="Pieces in the vocabulary; 100 sentinels are added. Or put a spiece.model into FOLDER."),
        click.option("--vocabulary-characters", type=at_least_one, default=20_000_000, show_default=True,
            help="Characters of text from which the vocabulary is made."),
    ])(command)  # fmt: skip


def cadence_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for how often things happen."""
    return _together([
        click.option("--report-every-steps", type=click.IntRange(min=1), default=10, show_default=True,
            help="Write a line of progress and of the curve."),
        click.option("--evaluate-every-steps", type=click.IntRange(min=0), default=500, show_default=True,
            help="Measure the held-out slice; 0 measures only at the end."),
        click.option("--checkpoint-every-steps", type=click.IntRange(min=0), default=0, show_default=True,
            help="Write a checkpoint; 0 leaves this to the minutes."),
        click.option("--checkpoint-every-minutes", type=Finite(min=0), default=5.0,
            show_default=True, help="Write a checkpoint; 0 leaves this to the steps."),
        click.option("--max-minutes", type=Finite(min=0),
            help="Save and stop after this time; the same command continues."),
    ])(command)  # fmt: skip


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The rest."""
    return _together([
        click.option("--checkpoint-dir", type=click.Path(file_okay=False, path_type=Path),
            help="Folder of the checkpoints, from which the same command continues; it may be on a disk that "
            "outlives the machine. Default: FOLDER/state."),
        click.option("--name", default="", help="Name of the model."),
        click.option("--data-licence", default="", help="Licence of the text, for the model card."),
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
