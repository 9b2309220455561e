"""The tasks of benchmarks/tuning: files to texts, splits that never meet, shots that fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tuning import rows as rows_module
from benchmarks.tuning.amazon import clear_rows
from benchmarks.tuning.interpret import labels_found, nearest
from benchmarks.tuning.rows import load_rows
from benchmarks.tuning.tasks import TASKS, Source, Task
from tests.places import SHARED

NUMBERED = "".join(f"{number % 2} text caf\u00e9 {number} is here\n" for number in range(60))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of 60 rows in the style of Subj, without a report split of its own."""
    (tmp_path / "all").write_text(NUMBERED, encoding="latin-1")
    task = Task(
        name="small", train=Source("all", "numbered"), report=None, target="label",
        answers={"0": "no", "1": "yes"}, template="{text}", instruction="{text} - yes or no?",
        selection_rows=10, report_rows=20, few_shot=4,
    )  # fmt: skip
    monkeypatch.setitem(TASKS, "small", task)
    yield tmp_path
    rows_module.load_rows.cache_clear()


def test_no_row_is_in_two_splits(small: Path) -> None:
    rows = load_rows("small", small)
    parts = [rows.train.rows, rows.selection.rows, rows.report]
    assert [len(part) for part in parts] == [30, 10, 20]
    assert len({row.text for part in parts for row in part}) == 60


def test_both_wordings_hold_the_same_rows_in_the_same_order(small: Path) -> None:
    rows = load_rows("small", small)
    assert [row.text for row in rows.instructed] == [f"{row.text} - yes or no?" for row in rows.report]
    assert [row.answers for row in rows.instructed] == [row.answers for row in rows.report]


def test_shots_take_labels_in_turn_and_come_from_train_alone(small: Path) -> None:
    rows = load_rows("small", small)
    assert [row.answers[0] for row in rows.shots] == ["no", "yes", "no", "yes"]
    trained = {f"{row.text} - yes or no?" for row in rows.train.rows}
    assert {row.text for row in rows.shots} <= trained


def test_the_split_is_the_same_each_time_and_latin_1_is_read(small: Path) -> None:
    first = load_rows("small", small)
    rows_module.load_rows.cache_clear()
    assert load_rows("small", small) == first
    assert all("caf\u00e9" in row.text for row in first.report)


def test_only_clearly_rated_sentences_are_taken() -> None:
    lines = "1_1\t-0.9\tso so.\n1_2\t-1.0\tbad.\n1_3\t2.5\tgood\tindeed.\n1_4\t3\t \n"
    found = [(row.row, row.text, row.answers) for row in clear_rows(lines)]
    assert found == [(2, "bad.", ("negative",)), (3, "good\tindeed.", ("positive",))]


def test_the_nearest_piece_is_by_angle_not_by_length() -> None:
    unit = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    places, cosines = nearest(np.array([[9, 1], [0.1, 0.2]], np.float32), unit, 2)
    assert places.tolist() == [[0, 2], [2, 1]]
    assert cosines[0, 0] > 0.99


def test_a_label_counts_when_any_of_its_pieces_is_near_any_row() -> None:
    assert labels_found([[5, 6], [7, 8]], [[7, 9], [10], [5]]) == 2


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_its_labels_in_every_split(name: str) -> None:
    if not (SHARED / "data").exists():
        pytest.skip("the data sets are not here")
    rows = load_rows(name, SHARED / "data")
    counts = [Counter(row.answers[0] for row in part) for part in (rows.train.rows, rows.report)]
    assert all(set(count) <= set(rows.task.labels) for count in counts)
    assert len(counts[0]) == len(rows.task.labels)
    assert len(rows.shots) == rows.task.few_shot
    assert all(rows.digests.values())
