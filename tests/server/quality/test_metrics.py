"""Metrics against values worked out by hand, T5's own values, and their page."""

from __future__ import annotations

import re

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.quality.metrics import NAMES, check_metrics, measure
from tests.places import ROOT
from tests.server.quality import t5_metrics

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


@pytest.mark.parametrize("name", t5_metrics.NAMES)
def test_the_value_is_t5s_on_ten_thousand_random_cases(name: str) -> None:
    with np.load(t5_metrics.FILE) as found:
        theirs = found[name]
    ours = [
        measure([name], case.predictions, case.answers, case.labels, case.columns)[name]
        for case in t5_metrics.cases(name)
    ]
    assert len(theirs) == t5_metrics.CASES
    assert np.abs(np.array(ours) - theirs).max() < 1e-9
    assert len(set(np.round(theirs, 6))) > 5, "the cases tell values apart"


def test_every_metric_is_compared_with_t5s() -> None:
    assert {*t5_metrics.NAMES, "exact_match"} == set(NAMES), "exact_match is accuracy"


def test_a_question_is_right_if_all_of_its_answer_options_are() -> None:
    said, true = ["True", "False", "True", "maybe"], [("True",), ("False",), ("True",), ("False",)]
    found = measure(["multirc_em"], said, true, (), {"group": ["q1", "q1", "q2", "q2"]})
    assert found["multirc_em"] == 1 / 2
    apart = measure(["multirc_em"], said, true, (), {"group": ["q1", "q2", "q3", "q4"]})
    assert apart["multirc_em"] == 3 / 4, "the control: by row"


def test_a_query_counts_once_with_all_of_its_answers() -> None:
    said, true = ["The US", "China", "France"], [("Peru", "US"), ("Peru", "US"), ("Spain",)]
    found = measure(["record_em", "record_f1"], said, true, (), {"group": ["1", "1", "2"]})
    assert (found["record_em"], found["record_f1"]) == (1 / 2, 1 / 2)
    assert measure(["squad_em"], said, true)["squad_em"] == pytest.approx(1 / 3), "the control"


def test_a_referent_is_named_without_case_and_determiners() -> None:
    said = ["fuzzy bunny", "Bob", "Bob", "the", "Ann"]
    true = [("the bunny",), ("Bob's hat",), ("Bob's hat",), ("cat",), ("Bob",)]
    truths = ["True", "true", "0", "false", "1"]
    assert measure(["wsc_referent"], said, true, (), {"label": truths})["wsc_referent"] == 2 / 5


def test_spearman_knows_only_the_order() -> None:
    said, true = ["1", "2", "30", "400"], [("1",), ("2",), ("3",), ("4",)]
    found = measure(["spearman", "pearson"], said, true)
    assert found["spearman"] == pytest.approx(1.0) and found["pearson"] < 0.95


def test_rouge_l_takes_the_best_answer() -> None:
    assert _one("rouge_l", ["the cat sat"], [("a dog", "The cat, it sat!")], ()) == pytest.approx(6 / 7)
    assert _one("rouge_l", ["!"], [("!",)], ()) == 0.0


def test_one_page_names_every_metric_with_its_rule() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", page, re.MULTILINE))
    assert not set(NAMES) - rows.keys()


def test_several_metrics_have_a_mean() -> None:
    found = measure(["accuracy", "f1_binary"], SAID, TRUE, LABELS)
    assert found["mean"] == pytest.approx((found["accuracy"] + found["f1_binary"]) / 2)


def test_a_perfect_answer_is_one_everywhere() -> None:
    said, true = ["0", "1", "1"], [("0",), ("1",), ("1",)]
    columns = {"group": ["a", "b", "b"], "label": ["true", "true", "true"]}
    found = measure(list(NAMES), said, true, ("0", "1"), columns)
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ((), LABELS),
        (("bleu",), LABELS),
        (("f1_binary",), ()),
        (("f1_over_all_answers",), "abc"),
        (("f1_macro",), ()),
        (("multirc_em",), LABELS),
        (("wsc_referent",), ()),
    ],
)
def test_metrics_that_do_not_suit_are_refused_before_a_job_starts(
    names: tuple[str, ...], labels: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_metrics(names, labels, ())
    assert refused.value.field == "metrics"
