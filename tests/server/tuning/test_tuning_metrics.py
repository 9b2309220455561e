"""Metrics against values worked out by hand, or known from the published definitions."""

from __future__ import annotations

import numpy as np
import pytest

from server.errors import InvalidInputError
from server.tuning.metrics import METRICS, check_metrics, measure

LABELS = ("no", "yes")
SAID = ["yes", "yes", "no", "maybe", "no", "yes"]
TRUE = [("yes",), ("no",), ("no",), ("yes",), ("yes",), ("yes",)]


def _one(name: str, said: list[str], true: list[tuple[str, ...]], labels: tuple[str, ...] = LABELS) -> float:
    return measure([name], said, true, labels)[name]


def test_accuracy_takes_any_accepted_answer_but_no_other_spelling() -> None:
    assert _one("accuracy", SAID, TRUE) == 3 / 6
    assert _one("accuracy", [" a ", "B"], [("b", "a"), ("b",)], ()) == 1 / 2


def test_binary_f1_counts_an_unknown_answer_as_not_positive() -> None:
    # yes: 2 right of 3 said and 4 true
    assert _one("f1_binary", SAID, TRUE) == pytest.approx(2 * 2 / (3 + 4))
    assert _one("f1_binary", ["no"], [("no",)]) == 0.0


def test_f1_over_all_answers_counts_an_unknown_answer_as_the_wrong_label() -> None:
    said, true = ["huh", "yes"], [("no",), ("yes",)]
    assert _one("f1_binary", said, true) == 1.0
    assert _one("f1_over_all_answers", said, true) == pytest.approx(2 / 3)
    assert _one("f1_over_all_answers", SAID, TRUE) == pytest.approx(4 / 7)


def test_macro_f1_is_the_mean_over_all_labels() -> None:
    labels = ("entailment", "contradiction", "neutral")
    said = ["entailment", "entailment", "contradiction", "contradiction"]
    true = [("entailment",), ("contradiction",), ("contradiction",), ("contradiction",)]
    assert _one("f1_macro", said, true, labels) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)


def test_squad_normalises_and_takes_the_best_answer() -> None:
    assert _one("exact_match", ["The  Cat!"], [("a dog", "cat")], ()) == 1.0
    # "cat sat on mat" and "cat on mat": 3 words in common of 4 and 3
    assert _one("squad_f1", ["the cat sat on the mat"], [("a cat on a mat", "x")], ()) == pytest.approx(6 / 7)
    assert _one("squad_f1", ["!"], [("the",)], ()) == 1.0
    assert _one("squad_f1", ["!"], [("dog",)], ()) == 0.0
    assert _one("squad_f1", ["cat cat"], [("cat",)], ()) == pytest.approx(2 / 3)


def test_matthews_is_the_correlation_of_two_labels() -> None:
    said = ["1", "1", "0", "1", "0", "0", "0", "1"]
    true = ["1", "0", "0", "1", "0", "1", "0", "1"]
    expected = np.corrcoef([int(a) for a in said], [int(b) for b in true])[0, 1]
    assert _one("matthews", said, [(b,) for b in true], ("0", "1")) == pytest.approx(expected)
    assert _one("matthews", ["1", "1"], [("0",), ("1",)], ("0", "1")) == 0.0
    assert _one("matthews", ["a", "b", "c"], [("a",), ("b",), ("c",)], ()) == 1.0


def test_pearson() -> None:
    said, true = ["1.0", "2.5", "3.1", "0.4"], ["0.8", "2.2", "3.9", "1.0"]
    expected = np.corrcoef([float(a) for a in said], [float(b) for b in true])[0, 1]
    assert _one("pearson", said, [(b,) for b in true], ()) == pytest.approx(expected)
    assert _one("pearson", ["x", "1"], [("0",), ("1",)], ()) == pytest.approx(1.0)
    assert _one("pearson", ["nan", "0"], [("0",), ("1",)], ()) == 0.0
    assert _one("pearson", ["1e308", "1"], [("0",), ("1",)], ()) == pytest.approx(1.0), "1e308 counts as 0"
    assert _one("pearson", ["1e60", "-1e60"], [("1e60",), ("-1e60",)], ()) == pytest.approx(1.0)


def test_several_metrics_have_a_mean() -> None:
    found = measure(["accuracy", "f1_binary"], SAID, TRUE, LABELS)
    assert found["mean"] == pytest.approx((found["accuracy"] + found["f1_binary"]) / 2)


def test_a_perfect_answer_is_one_everywhere() -> None:
    said, true = ["0", "1", "1"], [("0",), ("1",), ("1",)]
    assert set(measure(list(METRICS), said, true, ("0", "1")).values()) == {1.0}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ((), LABELS),
        (("bleu",), LABELS),
        (("f1_binary",), ()),
        (("f1_over_all_answers",), "abc"),
        (("f1_macro",), ()),
    ],
)
def test_metrics_that_do_not_suit_are_refused_before_a_job_starts(
    names: tuple[str, ...], labels: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_metrics(names, labels)
    assert refused.value.field == "metrics"
