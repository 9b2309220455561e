"""A run, from its options to a checkpoint and a card.

`run_pretraining` makes a model, `run_adaptation` continues one.

FOLDER/spiece.model, tokens/   made once (`run_adaptation` takes the model's vocabulary)
FOLDER/state/                  Orbax checkpoints
FOLDER/curve.jsonl             the curve
FOLDER/model/                  the finished model; model-000/, model-010/, ... on the way to it
FOLDER/card.json, CARD.md      the model card
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from chorus_server.errors import InvalidInputError, InvalidModelError
from chorus_server.log import Say
from chorus_server.model.checkpoints.convert import write_checkpoint
from chorus_server.model.checkpoints.opening import OpenOptions, open_checkpoint
from chorus_server.model.checkpoints.verify import find_fingerprint
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary, fit_vocabulary
from chorus_server.model.config import T5Config
from chorus_server.model.t5 import random_tensors
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.card import card_beside, make_card, write_card
from chorus_server.pretraining.checkpoints import Checkpoints, State
from chorus_server.pretraining.curve import Curve
from chorus_server.pretraining.materials import TextOptions, ensure_tokens, ensure_vocabulary
from chorus_server.pretraining.mesh import make_mesh
from chorus_server.pretraining.programs import PretrainingPrograms, make_programs
from chorus_server.pretraining.settings import PretrainingSettings
from chorus_server.pretraining.sources import ExampleSource, RowSource, token_source
from chorus_server.pretraining.trainer import Cadence, Trainer

TensorStream = Iterable[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a run goes, apart from its `PretrainingSettings`.

    Attributes:
        folder: the run's folder; a run found there is continued.
        text: the text to learn from.
        examples: JSON lines, for the objective of this name.
        leave_out: tasks of the examples to leave out of training.
        fractions: percentages of the steps at which the model is written, besides the end.
        name: name of the model.
        data_licence: licence of the text, for the card.
        model_devices: devices that share each weight; the others share the rows.
        checkpoint_dir: where the checkpoints are; None means `state` in the run's folder.
        background_checkpoints: whether to write them while training goes on.
        stop: returns true once somebody asked the run to end.
    """

    folder: Path
    text: TextOptions
    examples: Path | None = None
    leave_out: tuple[str, ...] = ()
    fractions: tuple[float, ...] = ()
    name: str = ""
    data_licence: str = ""
    model_devices: int = 1
    checkpoint_dir: Path | None = None
    background_checkpoints: bool = True
    cadence: Cadence
    stop: Callable[[], bool] = lambda: False

    @property
    def state(self) -> Path:
        """The folder of the checkpoints."""
        return self.checkpoint_dir or self.folder / "state"


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        tensors: makes the first weights; canonical, f32.
        base: fingerprint of the model that is continued, or "random".
        card: card of that model.
    """

    config: T5Config
    vocabulary: FoundVocabulary
    tensors: Callable[[], TensorStream]
    base: str
    card: dict[str, Any] | None


PretrainingEnding = Literal["finished", "stopped"]


def prepare_data(options: RunOptions, settings: PretrainingSettings, say: Say) -> None:
    """Make only the vocabulary and the token files, to be carried elsewhere."""
    options.folder.mkdir(parents=True, exist_ok=True)
    path = ensure_vocabulary(options.folder, options.text, settings.seed, say)
    ensure_tokens(options.folder, Vocabulary.load(path), options.text, settings.seed, say)


def run_pretraining(
    architecture: T5Config, options: RunOptions, settings: PretrainingSettings, say: Say
) -> PretrainingEnding:
    """Make a model from text.

    Args:
        architecture: its vocabulary sizes are replaced by those of the vocabulary.

    Raises:
        InvalidInputError: an option, the text, or the content of the folder is not valid; names the option.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    path = ensure_vocabulary(options.folder, options.text, settings.seed, say)
    rows = dataclasses.replace(architecture, vocab_size=1, padded_vocab_size=1)
    config, vocabulary = fit_vocabulary(rows, path)
    assert vocabulary is not None
    if options.name:
        config = dataclasses.replace(config, name=options.name)
    start = Start(config, vocabulary, lambda: random_tensors(config, settings.seed), "random", None)
    return _run(start, options, settings, say)


def run_adaptation(
    model: str, options: RunOptions, settings: PretrainingSettings, say: Say
) -> PretrainingEnding:
    """Continue a model that `load_model` reads.

    Raises:
        InvalidModelError: the model cannot be read, or has no vocabulary.
        InvalidInputError: see `run_pretraining`.
    """
    reader = open_checkpoint(model, OpenOptions(name=options.name))
    if reader.vocabulary is None:
        raise InvalidModelError(
            f"{model} has no vocabulary: put its spiece.model into the folder", field="model"
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    fingerprint = find_fingerprint(reader)
    known = card_beside(model) or {"name": reader.config.name, "fingerprint": fingerprint}
    float32 = np.dtype(np.float32)
    start = Start(reader.config, reader.vocabulary, lambda: reader.tensors(float32), fingerprint, known)
    return _run(start, options, settings, say)


def _run(start: Start, options: RunOptions, settings: PretrainingSettings, say: Say) -> PretrainingEnding:
    options.state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as alone:
        for folder in {options.folder.resolve(), options.state.resolve()}:
            alone.enter_context(_alone(folder))
        return _run_alone(start, options, settings, say)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep out a second process, which would continue from a state that the first is still writing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(
                f"another process is training in {folder}; wait for its end, or give another folder",
                field="folder",
            ) from None
        yield
    finally:
        os.close(descriptor)


def _run_alone(
    start: Start, options: RunOptions, settings: PretrainingSettings, say: Say
) -> PretrainingEnding:
    target = options.folder / "model"
    if target.exists():
        say(f"finished already: {target}")
        return "finished"
    source = _source(start, options, settings, say)
    programs = make_programs(
        start.config, settings, make_mesh(options.model_devices, settings.micro_batch_size)
    )
    checkpoints = Checkpoints(
        options.state,
        _identity(start, source, settings),
        background=options.background_checkpoints,
    )
    try:
        curve = Curve(options.folder / "curve.jsonl")
        state = _state(start, programs, checkpoints, say)
        if state.step == 0 and curve.lines():
            say(f"no checkpoint in {options.state}: starting again")
        trainer = Trainer(
            programs, source, settings, options.cadence, state, checkpoints, curve, say,
            milestones=_milestones(start, options, settings, say), stop=options.stop,
        )  # fmt: skip
        ending = trainer.run()
    finally:
        checkpoints.close()
    if ending == "stopped":
        say(f"stopped at step {state.step:,} of {settings.steps:,}, saved; the same command continues")
        return ending
    fingerprint = write_model(target, start, state)
    card = make_card(
        name=start.config.name, config=start.config, fingerprint=fingerprint, settings=settings.to_json(),
        facts=source.facts, licence=options.data_licence, steps=state.step, tokens=state.tokens,
        seconds=state.seconds, curve=curve.lines(), machine=machine(), base=start.card,
    )  # fmt: skip
    write_card(options.folder, card)
    say(f"wrote {target}, fingerprint {fingerprint}")
    return ending


def _source(start: Start, options: RunOptions, settings: PretrainingSettings, say: Say) -> RowSource:
    vocabulary = Vocabulary.load(start.vocabulary.path, extra_ids=start.vocabulary.extra_ids)
    if settings.objective == "examples":
        if options.examples is None:
            raise InvalidInputError("--objective examples needs --examples FILE", field="examples")
        return ExampleSource(options.examples, options.leave_out, vocabulary, settings)
    tokens = ensure_tokens(options.folder, vocabulary, options.text, settings.seed, say)
    return token_source(tokens, vocabulary, settings)


def _state(start: Start, programs: PretrainingPrograms, checkpoints: Checkpoints, say: Say) -> State:
    tensors = {
        name: jax.device_put(np.asarray(array), None if programs.weights is None else programs.weights[name])
        for name, array in start.tensors()
    }
    optimiser = programs.start(tensors)
    found = checkpoints.restore(tensors, optimiser)
    if found is not None:
        say(f"continuing from step {found.step:,}")
    return found or State(0, tensors, optimiser)


def _identity(start: Start, source: RowSource, settings: PretrainingSettings) -> dict[str, Any]:
    architecture = {k: v for k, v in dataclasses.asdict(start.config).items() if k != "name"}
    return {
        **settings.to_json(), "architecture": architecture, "base": start.base, "data": source.digest,
    }  # fmt: skip


def _milestones(start: Start, options: RunOptions, settings: PretrainingSettings, say: Say) -> dict[int, Any]:
    def writer(target: Path) -> Callable[[State], None]:
        def write_once(state: State) -> None:
            if not target.exists():
                write_model(target, start, state)
                say(f"wrote {target} at step {state.step:,}")

        return write_once

    return {
        round(settings.steps * percent / 100): writer(options.folder / f"model-{percent:03g}")
        for percent in options.fractions
    }


def write_model(target: Path, start: Start, state: State) -> str:
    """Write the weights as one of our checkpoints, whole or not at all. Returns the fingerprint."""
    order = ((name, np.asarray(jax.device_get(state.tensors[name]))) for name in state.tensors)
    objective = f"step {state.step} after {start.base}"
    written = write_checkpoint(
        target, start.config, order, to="orbax", dtype=np.dtype(np.float32), vocabulary=start.vocabulary,
        source=objective,
    )  # fmt: skip
    return written.fingerprint


def machine() -> dict[str, Any]:
    """The machine on which a run ran, for its card."""
    device = jax.devices()[0]
    return {
        "platform": device.platform, "device": device.device_kind, "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jax": jax.__version__, "python": platform.python_version(),
    }  # fmt: skip
