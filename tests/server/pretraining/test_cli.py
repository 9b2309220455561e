"""`chorus pretrain` and `chorus adapt` as a user meets them, at toy size."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from chorus_server.model.checkpoints import load_model, open_checkpoint
from chorus_server.model.t5 import tensors_of
from chorus_server.pretraining.cli import _stoppable, adapt, pretrain
from chorus_server.pretraining.data.span_corruption import fitting_shape
from chorus_server.pretraining.materials import TextOptions
from chorus_server.pretraining.runs import RunOptions
from chorus_server.pretraining.trainer import Cadence
from tests.places import ROOT
from tests.server.pretraining.pretraining_tools import PIECES
from tether import tethered

SIZES = (
    "--d-model", "16", "--d-ff", "24", "--d-kv", "4", "--num-heads", "2", "--encoder-layers", "1",
    "--decoder-layers", "1",
)  # fmt: skip
TRAINING = (
    "--input-length", "32", "--batch-size", "4", "--micro-batch-size", "4", "--warmup-steps", "2",
    "--seed", "3", "--evaluate-batches", "1", "--report-every-steps", "2", "--held-out-share", "0.25",
)  # fmt: skip


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pretrained(materials: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made in two sittings: the first one's time is up before its first step."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    command = (folder, "--corpus", materials / "corpus.txt", "--pieces", PIECES, *SIZES, *TRAINING,
               "--steps", 6, "--name", "toy", "--data-licence", "made up, free")  # fmt: skip
    first = run(pretrain, *command, "--max-minutes", 0)
    assert first.exit_code == 0 and "the same command continues" in first.output, first.output
    assert not (folder / "model").exists()
    second = run(pretrain, *command)
    assert second.exit_code == 0 and "continuing from step 0" in second.output, second.output
    assert "making a vocabulary" in first.output and "making a vocabulary" not in second.output
    third = run(pretrain, *command)
    assert third.exit_code == 0 and "finished already" in third.output, third.output
    yield folder


def test_a_run_whose_folder_is_lost_goes_on_from_its_checkpoint_folder(
    pretrained: Path, materials: Path, tmp_path: Path
) -> None:
    folder, kept = tmp_path / "run", tmp_path / "disk" / "kept"
    command = (folder, "--corpus", materials / "corpus.txt", "--pieces", PIECES, *SIZES, *TRAINING,
               "--checkpoint-dir", kept)  # fmt: skip
    first = run(pretrain, *command, "--steps", 4)
    assert first.exit_code == 0, first.output
    assert not (folder / "state").exists() and (kept / "4").is_dir()
    shutil.rmtree(folder)  # the machine is gone
    second = run(pretrain, *command, "--steps", 6)
    assert second.exit_code == 0 and "continuing from step 4" in second.output, second.output
    assert open_checkpoint(folder / "model").fingerprint == open_checkpoint(pretrained / "model").fingerprint
    # Without it, the run starts again, and says so.
    shutil.rmtree(folder / "model")
    third = run(pretrain, *command[:-2], "--steps", 6, "--max-minutes", 0)
    assert f"no checkpoint in {folder / 'state'}: starting again" in third.output, third.output


def test_the_model_loads_with_vocabulary_and_fingerprint(pretrained: Path) -> None:
    loaded = load_model(pretrained / "model")
    assert loaded.vocabulary is not None and loaded.vocabulary.size == PIECES + 100
    assert loaded.model.config.vocab_size == PIECES + 100 and loaded.model.config.padded_vocab_size == 512
    assert loaded.name == "toy"
    assert all(np.isfinite(array).all() for _, array in tensors_of(loaded.model))


def test_the_card_tells_what_was_done(pretrained: Path) -> None:
    card = json.loads((pretrained / "card.json").read_text())
    assert card["fingerprint"] == open_checkpoint(pretrained / "model").fingerprint
    assert card["data"]["licence"] == "made up, free" and card["data"]["corpus"][0]["name"] == "corpus.txt"
    training = card["training"]
    assert training["steps"] == 6 and training["settings"]["seed"] == 3
    assert training["tokens"] == 6 * 4 * _row_tokens()
    assert [line["step"] for line in card["curve"]] == [2, 4, 6] and card["held_out"]["step"] == 6
    text = (pretrained / "CARD.md").read_text()
    assert "made up, free" in text and card["fingerprint"] in text and "## Limits" in text


def _row_tokens() -> int:
    shape = fitting_shape(32, 0.15, 3.0, 100)
    return shape.input_length + shape.target_length


def test_adaptation_writes_its_fractions(pretrained: Path, tmp_path: Path) -> None:
    command = (pretrained / "model", tmp_path / "adapted", "--tokens", pretrained / "tokens", *TRAINING,
               "--steps", 4, "--fractions", "0,50")  # fmt: skip
    done = run(adapt, *command)
    assert done.exit_code == 0, done.output
    before, half, after = (
        dict(open_checkpoint(folder).tensors(np.dtype(np.float32)))
        for folder in (
            pretrained / "model",
            tmp_path / "adapted" / "model-050",
            tmp_path / "adapted" / "model",
        )
    )
    zero = open_checkpoint(tmp_path / "adapted" / "model-000")
    assert zero.fingerprint == open_checkpoint(pretrained / "model").fingerprint
    moved = [float(np.abs(half[name] - before[name]).max()) for name in before]
    assert max(moved) > 0 and any((after[name] != half[name]).any() for name in after)
    card = json.loads((tmp_path / "adapted" / "card.json").read_text())
    assert card["training"]["settings"]["objective"] == "prefix_lm" and card["base"]["name"] == "toy"


def test_examples_are_a_stage_of_their_own(pretrained: Path, tmp_path: Path) -> None:
    lines = [
        {"task": task, "input": f"{task}: the cat sees {n}", "target": "seven" if n % 2 else "door"}
        for task in ("one", "two", "three")
        for n in range(20)
    ]
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run(
        adapt, pretrained / "model", tmp_path / "mixed", "--objective", "examples", "--examples", path,
        "--leave-out", "two", *TRAINING, "--input-length", 64, "--target-length", 16, "--steps", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "mixed" / "card.json").read_text())["data"]
    assert set(data["tasks"]) == {"one", "three"} and data["left_out"] == ["two"]
    assert "left out of training: two" in (tmp_path / "mixed" / "CARD.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--micro-batch-size", 3), "--micro-batch-size must divide --batch-size (4)"),
        (("--seed", 4), "seed was 3, now 4"),
        (("--input-length", 2000), "sentinels; choose a smaller --input-length"),
        (("--corpus", "nowhere.txt"), "there is no file nowhere.txt"),
        (("--model-devices", 3), "--model-devices must divide"),
    ],
)
def test_mistakes_are_one_sentence_that_names_the_option(
    pretrained: Path, tmp_path: Path, more: tuple[object, ...], message: str
) -> None:
    """On a copy of a run that is not finished: its `model` is not there yet."""
    for name in ("spiece.model", "tokens", "state"):
        (tmp_path / name).symlink_to(pretrained / name)
    done = run(pretrain, tmp_path, *SIZES, *TRAINING, "--steps", 6, *more)
    assert done.exit_code == 1 and message in done.output, done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("fractions", ["100", "ten", "-1"])
def test_fractions_are_checked(pretrained: Path, tmp_path: Path, fractions: str) -> None:
    done = run(adapt, pretrained / "model", tmp_path / "x", "--fractions", fractions)
    assert done.exit_code == 2 and "percentages from 0 to below 100" in done.output


def test_only_preparing_makes_what_a_gpu_needs(materials: Path, tmp_path: Path) -> None:
    done = run(pretrain, tmp_path, "--corpus", materials / "corpus.txt", "--pieces", PIECES, "--prepare-only",
               "--held-out-share", 0.25)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spiece.model", "tokens"]


def test_a_run_is_alone_in_its_folder_and_sigterm_saves(materials: Path, tmp_path: Path) -> None:
    for name in ("spiece.model", "tokens"):
        (tmp_path / name).symlink_to(materials / name)
    command = [sys.executable, "-m", "chorus_server.pretraining", "pretrain", str(tmp_path)]
    command += [*SIZES, *TRAINING, "--steps", "1000000"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(
        tethered(command), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        try:
            for line in running.stderr:
                if "step 4 of" in line:
                    beside = run(pretrain, tmp_path, *SIZES, *TRAINING, "--steps", "1000000")
                    assert beside.exit_code == 1
                    assert "another process is training in" in beside.output
                    running.send_signal(signal.SIGTERM)
                    break
            rest = running.stderr.read()
            assert running.wait(timeout=1200) == 0, rest
        finally:
            running.kill()
    assert "saved; the same command continues" in rest
    # The last one: on a slow machine there may be one that was written because minutes had passed.
    step = max(int(path.name) for path in (tmp_path / "state").iterdir() if path.name.isdigit())
    assert f"stopped at step {step:,} of 1,000,000" in rest and step >= 4


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_that_asks_for_an_end_is_kept(tmp_path: Path, asked: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with _stoppable(RunOptions(folder=tmp_path, text=TextOptions(), cadence=Cadence())) as options:
        assert not options.stop()
        signal.raise_signal(asked)
        assert options.stop()
        # A second one ends at once, whichever it is.
        assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before
