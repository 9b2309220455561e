"""The paired bootstrap, against resamples that are drawn and measured one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from chorus_server.api.evaluation.comparing import compared, mcnemar
from chorus_server.api.evaluation.paired import PairedRows
from chorus_server.quality.metrics import NAMES, measure

ROWS = 300
LABELS = ["no", "yes"]
SETS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "two labels": (
        LABELS,
        ["no", "yes", "yes", "maybe"],
        ["accuracy", "f1_binary", "f1_macro", "f1_over_all_answers", "exact_match", "squad_em", "matthews"],
    ),
    "many labels": (list("abcde"), list("abcdefg"), ["accuracy", "f1_macro", "matthews"]),
    "texts": (
        (),
        ["the cat", "a dog", "cat", "two dogs"],
        ["exact_match", "squad_em", "squad_f1", "matthews", "rouge_l"],
    ),
    "numbers": ((), ["1", "2.5", "4", "none"], ["pearson", "spearman"]),
}
GROUPED = ["multirc_em", "record_em", "record_f1", "wsc_referent", "f1_binary", "squad_f1"]


def made(name: str) -> tuple[PairedRows, list[tuple[str, ...]], tuple[list[str], list[str]]]:
    labels, texts, metrics = SETS[name]
    chance = np.random.default_rng(11)
    known = labels or texts
    answers: list[tuple[str, ...]] = [(known[int(n)],) for n in chance.integers(len(known), size=ROWS)]
    said: list[list[str]] = [
        [
            answer[0] if chance.uniform() < share else texts[int(chance.integers(len(texts)))]
            for answer in answers
        ]
        for share in (0.5, 0.6)
    ]
    return PairedRows(metrics, (said[0], said[1]), answers, labels), answers, (said[0], said[1])


@pytest.mark.parametrize("name", SETS)
def test_resamples_are_measured_as_tuning_measures(name: str) -> None:
    labels, _, metrics = SETS[name]
    paired, answers, said = made(name)
    whole = paired.values(paired.counts)
    for subject in (0, 1):
        expected = measure(metrics, said[subject], answers, labels)
        assert {each: values[0, subject] for each, values in whole.items()} == pytest.approx(expected)
    # Each kind of row, as often as a resample has it.
    kinds = list(dict.fromkeys(zip(answers, said[0], said[1], strict=True)))
    drawn = np.random.default_rng(5).multinomial(ROWS, paired.counts / ROWS, size=20)
    found = paired.values(drawn)
    for place, counts in enumerate(drawn):
        rows = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
        for subject in (0, 1):
            texts = [(row[1], row[2])[subject] for row in rows]
            expected = measure(metrics, texts, [row[0] for row in rows], labels)
            got = {each: values[place, subject] for each, values in found.items()}
            assert got == pytest.approx(expected, abs=1e-12)


def test_intervals_are_those_of_drawn_rows() -> None:
    paired, answers, said = made("two labels")
    found = compared(paired, 3)
    right = np.array(
        [[text.strip() == a[0] for text, a in zip(texts, answers, strict=True)] for texts in said]
    )
    places = np.random.default_rng(9).integers(ROWS, size=(10_000, ROWS))
    differences = right[1][places].mean(axis=1) - right[0][places].mean(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(right[1].mean() - right[0].mean())
    assert accuracy["low"] == pytest.approx(low, abs=0.01) and accuracy["high"] == pytest.approx(
        high, abs=0.01
    )
    p = 2 * min((differences <= 0).mean(), (differences >= 0).mean())
    assert accuracy["p_value"] == pytest.approx(p, abs=0.02)
    assert found == compared(paired, 3), "the seed decides"
    assert found != compared(paired, 4), "the control"


def test_the_same_answers_do_not_differ() -> None:
    _, answers, said = made("two labels")
    same = compared(PairedRows(["accuracy"], (said[0], said[0]), answers, LABELS), 0)
    assert same["metrics"]["accuracy"] == {"difference": 0, "low": 0, "high": 0, "p_value": 1}
    assert same["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1}


def test_mcnemar_adds_up_the_binomial() -> None:
    paired, answers, said = made("two labels")
    only = [
        sum(
            ours.strip() == a[0] != theirs.strip()
            for ours, theirs, a in zip(said[n], said[1 - n], answers, strict=True)
        )
        for n in (0, 1)
    ]
    found = mcnemar(paired)
    assert [found["only_first"], found["only_second"]] == only
    both = sum(only)
    tail = sum(math.comb(both, k) for k in range(min(only) + 1)) / 2**both
    assert found["p_value"] == pytest.approx(min(1, 2 * tail))
    # Beyond the exact sum, the normal approximation is close to it.
    many = PairedRows(
        ["accuracy"],
        (["no"] * 5000, ["no"] * 2400 + ["yes"] * 2600),
        [("no",)] * 2400 + [("yes",)] * 2600,
        LABELS,
    )
    assert mcnemar(many) == {"only_first": 0, "only_second": 2600, "p_value": pytest.approx(0, abs=1e-12)}


def test_every_metric_has_its_counts() -> None:
    tried = {name for _, _, metrics in SETS.values() for name in metrics}
    assert tried | set(GROUPED) == set(NAMES)


def test_groups_are_drawn_whole() -> None:
    _, answers, said = made("two labels")
    chance = np.random.default_rng(2)
    names = [str(n) for n in chance.integers(60, size=ROWS)]
    truths = ["true" if n else "false" for n in chance.integers(2, size=ROWS)]
    paired = PairedRows(GROUPED, said, answers, LABELS, {"group": names, "label": truths})
    groups = list(dict.fromkeys(names))
    assert len(paired.counts) == len(groups) < len(paired.kinds) * 10
    drawn = chance.multinomial(len(groups), [1 / len(groups)] * len(groups), size=20)
    found = paired.values(drawn)
    for place, counts in enumerate(drawn):
        rows = [
            (row, f"{group} {copy}")
            for group, count in zip(groups, counts, strict=True)
            for copy in range(count)
            for row in range(ROWS)
            if names[row] == group
        ]
        columns = {"group": [name for _, name in rows], "label": [truths[row] for row, _ in rows]}
        for subject in (0, 1):
            texts, known = [said[subject][row] for row, _ in rows], [answers[row] for row, _ in rows]
            expected = measure(GROUPED, texts, known, LABELS, columns)
            assert {each: values[place, subject] for each, values in found.items()} == pytest.approx(expected)
    whole = compared(paired, 3)["metrics"]
    apart = compared(PairedRows(["f1_binary"], said, answers, LABELS), 3)["metrics"]
    assert whole["f1_binary"]["difference"] == pytest.approx(apart["f1_binary"]["difference"])
