"""Metrics against values worked out by hand, T5's rules written down again, and their page."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.metrics import METRICS, check_metrics, measure
from tests.places import ROOT

LABELS = ("no", "yes")
SAID = ["yes", "yes", "no", "maybe", "no", "yes"]
TRUE = [("yes",), ("no",), ("no",), ("yes",), ("yes",), ("yes",)]


def _one(name: str, said: list[str], true: list[tuple[str, ...]], labels: tuple[str, ...] = LABELS) -> float:
    return measure([name], said, true, labels)[name]


def test_accuracy_takes_any_accepted_answer_but_no_other_spelling() -> None:
    assert _one("accuracy", SAID, TRUE) == 3 / 6
    assert _one("accuracy", [" a ", "B"], [("b", "a"), ("b",)], ()) == 1 / 2


@pytest.mark.parametrize("name", ["f1_binary", "f1_over_all_answers"])
def test_binary_f1_counts_an_unknown_answer_as_the_wrong_label(name: str) -> None:
    said, true = ["huh", "yes"], [("no",), ("yes",)]
    assert _one(name, said, true) == pytest.approx(2 / 3)
    # yes: 2 right of 3 said and 4 true; "maybe" for "yes" counts as "no"
    assert _one(name, SAID, TRUE) == pytest.approx(2 * 2 / (3 + 4))
    assert _one(name, ["no"], [("no",)]) == 0.0


def test_macro_f1_is_the_mean_over_all_labels() -> None:
    labels = ("entailment", "contradiction", "neutral")
    said = ["entailment", "entailment", "contradiction", "contradiction"]
    true = [("entailment",), ("contradiction",), ("contradiction",), ("contradiction",)]
    assert _one("f1_macro", said, true, labels) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)


@pytest.mark.parametrize(
    ("said", "true"),
    [
        ("-5", "5"),
        ("C", "C++"),
        ("", "the"),
        ("Cat", "cat"),
        ("a cat", "cat"),
        ("1.5", "15"),
        ("a  b", "a b"),
    ],
)
def test_an_exact_match_is_exact_and_squads_is_not(said: str, true: str) -> None:
    assert _one("exact_match", [said], [(true,)], ()) == 0.0
    assert _one("exact_match", [f" {true}\n"], [(said, true)], ()) == 1.0, "spaces at the ends never count"
    assert _one("squad_em", [said], [(true,)], ()) == 1.0, "the control: SQuAD's rule takes them for equal"


def test_squad_normalises_and_takes_the_best_answer() -> None:
    assert _one("squad_em", ["The  Cat!"], [("a dog", "cat")], ()) == 1.0
    # "cat sat on mat" and "cat on mat": 3 words in common of 4 and 3
    assert _one("squad_f1", ["the cat sat on the mat"], [("a cat on a mat", "x")], ()) == pytest.approx(6 / 7)
    assert _one("squad_f1", ["!"], [("the",)], ()) == 0.0, "no word in common, as T5 has it"
    assert _one("squad_f1", ["!"], [("dog",)], ()) == 0.0
    assert _one("squad_f1", ["cat cat"], [("cat",)], ()) == pytest.approx(2 / 3)


def test_matthews_is_the_correlation_of_two_labels() -> None:
    said = ["1", "1", "0", "1", "0", "0", "0", "1"]
    true = ["1", "0", "0", "1", "0", "1", "0", "1"]
    expected = np.corrcoef([int(a) for a in said], [int(b) for b in true])[0, 1]
    assert _one("matthews", said, [(b,) for b in true], ("0", "1")) == pytest.approx(expected)
    assert _one("matthews", ["1", "1"], [("0",), ("1",)], ("0", "1")) == 0.0
    assert _one("matthews", ["a", "b", "c"], [("a",), ("b",), ("c",)], ()) == 1.0
    illegal = _one("matthews", ["1", "huh", "what", "0"], [("1",), ("0",), ("1",), ("0",)], ("0", "1"))
    same = _one("matthews", ["1", "huh", "huh", "0"], [("1",), ("0",), ("1",), ("0",)], ("0", "1"))
    assert illegal == same, "all illegal texts are one class"


def test_pearson() -> None:
    said, true = ["1.0", "2.5", "3.1", "0.4"], ["0.8", "2.2", "3.9", "1.0"]
    expected = np.corrcoef([float(a) for a in said], [float(b) for b in true])[0, 1]
    assert _one("pearson", said, [(b,) for b in true], ()) == pytest.approx(expected)
    assert _one("pearson", ["x", "1"], [("0",), ("1",)], ()) == pytest.approx(1.0)
    assert _one("pearson", ["nan", "-1"], [("0",), ("1",)], ()) == 0.0, "no number counts as -1"
    assert _one("pearson", ["1e308", "1"], [("0",), ("1",)], ()) == pytest.approx(1.0), "nor does 1e308"
    assert _one("pearson", ["1e60", "-1e60"], [("1e60",), ("-1e60",)], ()) == pytest.approx(1.0)


def _t5_ids(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """`t5/data/postprocessors.py`, string_label_to_class_id with its default of -1."""
    return [list(labels).index(text) if text in labels else -1 for text in texts]


def _t5_f1(said: list[str], true: list[str], labels: Sequence[str]) -> float:
    """`t5/evaluation/metrics.py`, f1_score_with_invalid; MRPC, QQP and MultiRC are measured by it."""
    targets, predictions = np.array(_t5_ids(true, labels)), np.array(_t5_ids(said, labels))
    invalid = (predictions != 0) & (predictions != 1)
    predictions[invalid] = 1 - targets[invalid]
    hits = int(((predictions == 1) & (targets == 1)).sum())
    all_of_both = int((predictions == 1).sum() + (targets == 1).sum())
    return 2 * hits / all_of_both if all_of_both else 0.0


def _t5_matthews(said: list[str], true: list[str], labels: Sequence[str]) -> float:
    """CoLA's: sklearn's matthews_corrcoef over class ids, here by the confusion matrix."""
    matrix = np.zeros((3, 3))
    for a, b in zip(_t5_ids(true, labels), _t5_ids(said, labels), strict=True):
        matrix[a, b] += 1  # -1 is the last row and column
    t, p, n = matrix.sum(1), matrix.sum(0), matrix.sum()
    below = (n**2 - p @ p) * (n**2 - t @ t)
    return float((np.trace(matrix) * n - t @ p) / np.sqrt(below)) if below else 0.0


def _t5_float(text: str) -> float:
    """`t5/data/postprocessors.py`, string_to_float with its default of -1."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def _t5_pearson(said: list[str], true: list[str], _: Sequence[str]) -> float:
    x, y = np.array([_t5_float(text) for text in said]), np.array([_t5_float(text) for text in true])
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else 0.0


def _t5_squad(text: str) -> str:
    """`t5/evaluation/qa_utils.py`, normalize_squad."""
    kept = "".join("" if each in set(string.punctuation) else each for each in text.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _t5_squad_em(said: list[str], true: list[str], _: Sequence[str]) -> float:
    return float(np.mean([_t5_squad(a) == _t5_squad(b) for a, b in zip(said, true, strict=True)]))


def _t5_squad_f1(said: list[str], true: list[str], _: Sequence[str]) -> float:
    """`t5/evaluation/qa_utils.py`, _f1_score."""
    scores = []
    for a, b in zip(said, true, strict=True):
        prediction, target = _t5_squad(a).split(), _t5_squad(b).split()
        same = sum((Counter(prediction) & Counter(target)).values())
        if same == 0:
            scores.append(0.0)
            continue
        precision, recall = same / len(prediction), same / len(target)
        scores.append(2 * precision * recall / (precision + recall))
    return float(np.mean(scores))


_TEXTS = ["a", "the", "!", "", "the cat", "cat", "A cat.", "cat cat mat", "-5", "5", "C++", "C"]


@pytest.mark.parametrize(
    ("name", "reference", "legal", "illegal"),
    [
        ("f1_binary", _t5_f1, LABELS, ["maybe", "", "yess"]),
        ("f1_over_all_answers", _t5_f1, LABELS, ["maybe", "", "yess"]),
        ("matthews", _t5_matthews, LABELS, ["maybe", "", "yess"]),
        ("pearson", _t5_pearson, ("0.0", "1.6", "3.2", "5.0"), ["huh", ""]),
        ("squad_em", _t5_squad_em, _TEXTS, _TEXTS),
        ("squad_f1", _t5_squad_f1, _TEXTS, _TEXTS),
    ],
)
def test_the_value_is_t5s_whatever_a_model_says(
    name: str,
    reference: Callable[[list[str], list[str], Sequence[str]], float],
    legal: Sequence[str],
    illegal: Sequence[str],
) -> None:
    draw = random.Random(name)
    for _ in range(200):
        size = draw.randint(1, 12)
        true = draw.choices(legal, k=size)
        said = draw.choices([*legal, *illegal], k=size)
        labels = legal if legal == LABELS else ()
        ours = _one(name, said, [(text,) for text in true], tuple(labels))
        assert ours == pytest.approx(reference(said, true, legal), abs=1e-9), (said, true)


def test_one_page_names_every_metric_with_its_rule() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", page, re.MULTILINE))
    assert not METRICS.keys() - rows.keys()


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
