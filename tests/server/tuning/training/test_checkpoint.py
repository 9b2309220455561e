"""Checkpoints: whole or not at all, whatever fails at whichever call; damage and other jobs are refused."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.quality.mistakes import MOST_CONFUSED, Mistakes
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import TrainingState
from prompts_store.blobs.files import Files
from prompts_store.digests import canonical_json
from tests.server.tuning.tuning_tools import task

JOB = TrainingRun(3, (task(0), task(1)))


class Died(BaseException):
    """The process ends here: nothing after it runs, no cleaning up."""


class FailingFiles(Files):
    """Fails at the k-th call: with an error that is cleaned up after, by dying, or by a write cut short."""

    def __init__(self, k: int, how: str) -> None:
        self.k, self.how, self.calls, self.dead = k, how, 0, False

    def _due(self) -> bool:
        if self.dead:
            raise Died
        self.calls += 1
        if self.calls == self.k and self.how == "dies":
            self.dead = True
            raise Died
        if self.calls == self.k and self.how == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.calls == self.k and self.how == "short"

    def create(self, path: Path) -> int:
        self._due()
        return super().create(path)

    def write(self, descriptor: int, content: memoryview) -> int:
        short = self._due()
        return super().write(descriptor, content[: max(1, len(content) // 2)] if short else content)

    def sync(self, descriptor: int) -> None:
        self._due()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._due()
        super().rename(source, target)

    def sync_folder(self, path: Path) -> None:
        self._due()
        super().sync_folder(path)

    def unlink(self, path: Path) -> None:
        self._due()
        super().unlink(path)


def _state(step: int) -> TrainingState:
    state = TrainingState.start(JOB)
    generator = np.random.default_rng(step)
    for name in ("prompts", "second_moment", "best"):
        setattr(state, name, generator.standard_normal(state.prompts.shape).astype(np.float32))
    state.step = state.evaluated_step = step
    state.losses = [generator.standard_normal(2).astype(np.float32) for _ in range(step)]
    state.standings[0].evaluations.append({"step": step, "split": "validation", "metrics": {"mean": 0.5}})
    state.standings[0].mistakes = Mistakes("validation", 3, [(0, 1, 2)], [(2, "y", 0.5), (0, "y", None)])
    state.standings[1].status = "diverged"
    return state


def _read(folder: Path) -> TrainingState:
    state = checkpoint.read_state(folder, JOB)
    assert state is not None
    return state


def _equal(one: TrainingState, other: TrainingState) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("prompts", "second_moment", "best", "losses")
    )
    return arrays and (one.step, one.standings) == (other.step, other.standings)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert checkpoint.read_state(tmp_path, JOB) is None
    assert checkpoint.made_elsewhere(tmp_path, JOB) is None
    for state in (TrainingState.start(JOB), _state(3)):
        checkpoint.write_state(tmp_path, JOB, state)
        assert _equal(_read(tmp_path), state)
    assert len(list(tmp_path.iterdir())) == 2
    assert _read(tmp_path).best.flags.writeable
    assert checkpoint.made_elsewhere(tmp_path, JOB) is None


def test_the_confusion_of_many_labels_takes_little_room(tmp_path: Path) -> None:
    """Of as many as are counted, where each was given each other: some twelve bytes a place."""
    state, many = _state(3), range(MOST_CONFUSED)
    dense = [(answer, said, 10 + said) for answer in many for said in range(MOST_CONFUSED + 1)]
    state.standings[0].mistakes = Mistakes("validation", 10**6, dense, [])
    checkpoint.write_state(tmp_path, JOB, state)
    assert (tmp_path / "job.json").stat().st_size < 16 * len(dense) + 10_000
    assert _equal(_read(tmp_path), state)
    # The control: as it was written before.
    spaced = json.dumps(json.loads((tmp_path / "job.json").read_bytes()), indent=1)
    assert len(spaced) > 2 * 16 * len(dense)


@pytest.mark.parametrize("how", ["dies", "full", "short"])
def test_every_failing_call_leaves_the_old_state_or_the_new_one(tmp_path: Path, how: str) -> None:
    old, new = _state(2), _state(4)
    outcomes = []
    for k in range(1, 40):
        folder = tmp_path / str(k)
        checkpoint.write_state(folder, JOB, old)
        files = FailingFiles(k, how)
        try:
            checkpoint.write_state(folder, JOB, new, files=files)
        except (OSError, Died):
            found = _read(folder)
            assert _equal(found, old) or _equal(found, new), f"call {k}"
            outcomes.append("new" if _equal(found, new) else "old")
        else:
            assert _equal(_read(folder), new)
            if files.calls < k:
                break
        checkpoint.write_state(folder, JOB, new)
        assert len(list(folder.iterdir())) == 2, "what a failed write left is swept by the next one"
    else:
        raise AssertionError("the sweep did not come to its end")
    assert (set(outcomes) == {"old", "new"}) if how != "short" else not outcomes


def test_control_writing_in_place_loses_the_state(tmp_path: Path) -> None:
    """The same sweep finds a broken writer: one that overwrites the named file."""
    checkpoint.write_state(tmp_path, JOB, _state(2))
    path = tmp_path / "job.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match="damaged"):
        checkpoint.read_state(tmp_path, JOB)


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    checkpoint.write_state(tmp_path, JOB, _state(2))
    tensors = next(tmp_path.glob("state-*"))
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(InvalidInputError) as refused:
        checkpoint.read_state(tmp_path, JOB)
    assert refused.value.code == "corrupt_checkpoint"
    tensors.unlink()
    with pytest.raises(InvalidInputError, match="damaged"):
        checkpoint.read_state(tmp_path, JOB)


def test_an_edited_step_is_refused(tmp_path: Path) -> None:
    checkpoint.write_state(tmp_path, JOB, _state(2))
    path = tmp_path / "job.json"
    document = json.loads(path.read_text())
    document["body"]["step"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match="damaged"):
        checkpoint.read_state(tmp_path, JOB)


@pytest.mark.parametrize("change", ["seed", "recipe", "data", "initial", "index"])
def test_another_jobs_checkpoint_is_refused(tmp_path: Path, change: str) -> None:
    checkpoint.write_state(tmp_path, JOB, _state(2))
    first: Any = JOB.tasks[0]
    others = {
        "seed": replace(JOB, seed=4),
        "recipe": TrainingRun(
            3, (replace(first, recipe=first.recipe.changed(learning_rate=0.1)), JOB.tasks[1])
        ),
        "data": TrainingRun(3, (replace(first, train=first.train[1:]), JOB.tasks[1])),
        "initial": TrainingRun(3, (replace(first, initial=first.initial + 1), JOB.tasks[1])),
        "index": TrainingRun(3, (replace(first, index=9), JOB.tasks[1])),
    }
    with pytest.raises(InvalidInputError) as refused:
        checkpoint.read_state(tmp_path, others[change])
    assert refused.value.code == "checkpoint_mismatch"


def test_a_checkpoint_of_another_jax_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write_state(tmp_path, JOB, _state(2))
    monkeypatch.setattr("jax.__version__", "0.99.0")
    warning = checkpoint.made_elsewhere(tmp_path, JOB)
    assert warning is not None and "0.99.0" in warning


def test_a_checkpoint_of_other_rules_is_told(tmp_path: Path) -> None:
    """A job that began when the warm-up did not start at zero, or `exact_match` was SQuAD's rule."""
    first = JOB.tasks[0]
    warming = replace(first, recipe=first.recipe.changed(warmup_steps=2))
    measured = replace(first, metrics=("exact_match",))
    for place, (job, word) in enumerate(
        [
            (TrainingRun(3, (warming,)), "warm-up"),
            (TrainingRun(3, (measured,)), "exact_match"),
            (TrainingRun(3, (first,)), ""),
        ]
    ):
        folder = tmp_path / str(place)
        checkpoint.write_state(folder, job, TrainingState.start(job))
        assert checkpoint.made_elsewhere(folder, job) is None
        document = json.loads((folder / "job.json").read_text())
        random = document["body"]["random"]
        document["body"]["random"] = {
            name: random[name] for name in ("seed", "order", "dropout", "jax", "platform")
        }
        document["digest"] = hashlib.sha256(canonical_json(document["body"])).hexdigest()
        (folder / "job.json").write_text(json.dumps(document))
        warning = checkpoint.made_elsewhere(folder, job)
        assert (warning is None) if not word else (warning is not None and word in warning), warning
