"""Folders of attempts: who wakes up late spoils nothing of who took the job over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.jobs.stages.writer import attempt_folder, newest_state, remove_older_attempts
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import TrainingState
from tests.server.tuning.tuning_tools import task

RUN = TrainingRun(3, (task(),))


def test_an_attempt_removes_what_is_older_and_nothing_that_is_newer(tmp_path: Path) -> None:
    state = TrainingState.start(RUN)
    for token in (1, 9, 10, 11):
        checkpoint.write_state(attempt_folder(tmp_path, token), RUN, state)
    remove_older_attempts(tmp_path, attempt_folder(tmp_path, 10))
    assert [attempt.name for attempt in sorted(tmp_path.iterdir())] == ["run-00000010", "run-00000011"]
    assert newest_state(tmp_path, RUN)[0] is not None


@pytest.mark.parametrize("really", [False, True])
def test_a_state_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, really: bool
) -> None:
    """By a runner that was given up for dead. The control: a damaged one stays damaged."""
    attempt, state, read = attempt_folder(tmp_path, 1), TrainingState.start(RUN), checkpoint._body
    checkpoint.write_state(attempt, RUN, state)

    def late(path: Path) -> Any:
        body = read(path)
        if really:
            next(attempt.glob("state-*")).write_bytes(b"damaged")
        elif state.evaluated_step == 0:
            state.evaluated_step, state.prompts[0, 0, 0] = 1, 5.0
            checkpoint.write_state(attempt, RUN, state)
        return body

    monkeypatch.setattr(checkpoint, "_body", late)
    if really:
        with pytest.raises(InvalidInputError, match="is damaged"):
            newest_state(tmp_path, RUN)
    else:
        found, _ = newest_state(tmp_path, RUN)
        assert found is not None and found.evaluated_step == 1 and found.prompts[0, 0, 0] == 5.0


def test_a_snapshot_stays_as_it_was_and_copies_no_entries() -> None:
    """Whoever hands a state in is the device's thread: thousands of evaluations must cost it nothing."""
    state = TrainingState.start(RUN)
    entry = {"step": 1, "split": "validation", "metrics": {"mean": 0.5}}
    state.standings[0].evaluations.append(entry)
    taken = state.snapshot()
    state.standings[0].evaluations.append({**entry, "step": 2})
    state.standings[0].best_step, state.prompts[0, 0, 0] = 2, 7.0
    (kept,) = taken.standings[0].evaluations
    assert kept is entry and taken.standings[0].best_step is None
    assert taken.prompts[0, 0, 0] == RUN.tasks[0].initial[0, 0]
