"""`chorus pretrain` and `chorus adapt`. JAX is imported when one runs, because `chorus --help` loads this
file."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from chorus_server.model.command import stated
from chorus_server.model.config import T5Config
from chorus_server.pretraining.options import (
    architecture_options,
    cadence_options,
    run_options,
    settings_options,
    text_options,
)
from chorus_server.signals import ending_signals

if TYPE_CHECKING:
    from chorus_server.pretraining.runs import RunOptions
    from chorus_server.pretraining.settings import PretrainingSettings

# LM adaptation starts where T5's schedule is after a million steps: 1 / sqrt(1,000,000).
_ADAPT_DEFAULTS = {
    "objective": "prefix_lm", "schedule": "constant", "learning_rate": 0.001, "warmup_steps": 0,
}  # fmt: skip


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@text_options
@architecture_options
@settings_options({})
@cadence_options
@run_options
@click.option("--prepare-only", is_flag=True, help="Only make vocabulary and token files in FOLDER.")
@stated
def pretrain(folder: Path, prepare_only: bool, **flags: Any) -> None:
    """Make a T5 1.1 from text: vocabulary, token files, weights and model card, all in FOLDER.

    If an earlier run stopped (a signal, Ctrl-C, --max-minutes, a crash), the same command continues it, to
    the same bits on the same machine. Then: chorus serve --model FOLDER/model.

    \b
    chorus pretrain small --corpus books.txt.gz --steps 20000
    chorus pretrain small --corpus books.txt.gz --prepare-only     # then carry the folder to a GPU
    """
    from chorus_server.pretraining import runs

    architecture = _architecture(flags)
    settings, options = _settings(flags), _options(folder, flags)
    if prepare_only:
        runs.prepare_data(options, settings, _say())
        return
    with _stoppable(options) as stoppable:
        runs.run_pretraining(architecture, stoppable, settings, _say())


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@text_options
@settings_options(_ADAPT_DEFAULTS)
@click.option(
    "--fractions", default="", metavar="LIST",
    help="Percentages of the steps at which the model is also written, as FOLDER/model-010: 0,10,30.",
)  # fmt: skip
@click.option(
    "--examples", type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help='For --objective examples: lines of {"task": name, "input": text, "target": text}.',
)  # fmt: skip
@click.option(
    "--leave-out", multiple=True, metavar="TASK", help="Task of --examples to leave out of training; repeat."
)
@cadence_options
@run_options
@stated
def adapt(model: str, folder: Path, fractions: str, **flags: Any) -> None:
    """Train MODEL further into FOLDER; by default this is LM adaptation.

    A checkpoint that saw only span corruption answers with sentinels, and prompts for it tune badly. After
    some steps of the LM objective they tune well (Lester et al. 2021, sections 2.2 and 3.2). MODEL is
    anything that chorus serve takes. Like chorus pretrain, the command continues an earlier run.

    \b
    chorus adapt google/t5-v1_1-small adapted --corpus books.txt.gz --steps 10000 --fractions 0,10,30
    """
    from chorus_server.pretraining import runs

    settings, options = _settings(flags), _options(folder, flags)
    options = dataclasses.replace(options, fractions=_fractions(fractions))
    with _stoppable(options) as stoppable:
        runs.run_adaptation(model, stoppable, settings, _say())


def _settings(flags: dict[str, Any]) -> PretrainingSettings:
    from chorus_server.pretraining.settings import PretrainingSettings

    return PretrainingSettings(
        **{field.name: flags[field.name] for field in dataclasses.fields(PretrainingSettings)}
    )


def _options(folder: Path, flags: dict[str, Any]) -> RunOptions:
    from chorus_server.pretraining.materials import TextOptions
    from chorus_server.pretraining.runs import RunOptions
    from chorus_server.pretraining.trainer import Cadence

    def of(kind: Any) -> dict[str, Any]:
        return {field.name: flags[field.name] for field in dataclasses.fields(kind) if field.name in flags}

    given = of(RunOptions)
    return RunOptions(
        **{
            **given,
            "folder": folder,
            "text": TextOptions(**of(TextOptions)),
            "cadence": Cadence(**of(Cadence)),
        }
    )


def _architecture(flags: dict[str, Any]) -> T5Config:
    """The architecture. Vocabulary sizes come later, from the vocabulary."""
    return T5Config(
        name=flags["name"] or "chorus-base", vocab_size=1, padded_vocab_size=1, d_model=flags["d_model"],
        d_kv=flags["d_kv"], d_ff=flags["d_ff"], num_heads=flags["num_heads"],
        num_encoder_layers=flags["encoder_layers"], num_decoder_layers=flags["decoder_layers"],
    )  # fmt: skip


def _fractions(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (-1.0,)
    if not all(0 <= percent < 100 for percent in found):
        raise click.BadParameter(
            f"give percentages from 0 to below 100, such as 0,10,30; got {text!r}", param_hint="--fractions"
        )
    return found


def _say() -> Callable[[str], None]:
    started = time.monotonic()

    def say(line: str) -> None:
        with suppress(OSError):  # a reader that has gone is no reason to lose a run
            click.echo(f"chorus [{time.monotonic() - started:7.1f} s] {line}", err=True)

    return say


@contextmanager
def _stoppable(options: RunOptions) -> Iterator[RunOptions]:
    """SIGTERM, Ctrl-C and SIGHUP ask the run to end: it saves, and the exit code is 0. A second one ends it
    at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        for other in before:
            signal.signal(other, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in ending_signals()}
    try:
        yield dataclasses.replace(options, stop=asked.is_set)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
