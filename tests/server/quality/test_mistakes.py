from __future__ import annotations

import json
from dataclasses import asdict

from chorus_server.quality.mistakes import MOST_CONFUSED, MOST_HARDEST, Mistakes, confusion_matrix

LABELS = ["no", "yes"]


def test_rows_with_the_highest_loss_come_first_and_of_equal_ones_the_first() -> None:
    said, answers = ["no", "yes", "no", "yes"], [["no"], ["no"], ["yes"], ["yes"]]
    made = Mistakes.of("validation", said, [0.5, 2.0, 2.0, 0.123456], answers, LABELS)
    assert made.hardest == [(1, "yes", 2.0), (2, "no", 2.0), (0, "no", 0.5), (3, "yes", 0.1235)]
    assert made.confused == [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
    assert confusion_matrix(made.confused, LABELS) == {"labels": LABELS, "counts": [[1, 1, 0], [1, 1, 0]]}


def test_of_written_text_the_first_wrong_rows_are_kept() -> None:
    answers = [["a film", "the film"], ["x"], ["y"]]
    made = Mistakes.of("test", [" the film ", "z", "y"], [None] * 3, answers, [])
    assert (made.confused, made.hardest) == (None, [(1, "z", None)])


def test_a_written_text_that_is_no_label_stands_in_the_last_column() -> None:
    made = Mistakes.of("test", ["maybe", " no"], [None, None], [["yes"], ["no"]], LABELS)
    assert made.confused == [(0, 0, 1), (1, 2, 1)] and made.hardest == [(0, "maybe", None)]


def test_what_is_kept_is_bounded() -> None:
    labels = [f"label {n}" for n in range(MOST_CONFUSED + 1)]
    rows = 500
    made = Mistakes.of("test", ["label 0"] * rows, [1.0] * rows, [["label 1"]] * rows, labels)
    assert made.confused is None and len(made.hardest) == MOST_HARDEST and made.rows == rows
    fewer = Mistakes.of("test", ["label 0"], [1.0], [["label 1"]], labels[:-1])
    assert fewer.confused == [(1, 0, 1)]  # the control


def test_a_loss_that_is_no_number_is_left_out() -> None:
    losses = [float("nan"), float("inf"), 1.0]
    made = Mistakes.of("test", ["no"] * 3, losses, [["yes"]] * 3, LABELS)
    assert made.hardest == [(2, "no", 1.0)]


def test_if_no_loss_is_a_number_what_is_kept_can_be_written() -> None:
    """A checkpoint refuses all that is no JSON."""
    losses = [float("nan"), float("inf"), float("-inf")]
    made = Mistakes.of("test", ["no", "yes", "no"], losses, [["yes"]] * 3, LABELS)
    assert made.hardest == [(0, "no", None), (2, "no", None)]
    json.dumps(asdict(made), allow_nan=False)


def test_they_come_back_from_json() -> None:
    made = Mistakes.of("test", ["no", "yes"], [1.0, 0.5], [["yes"], ["yes"]], LABELS)
    assert Mistakes.from_json(asdict(made)) == made
