"""Random cases for every metric, and what T5 itself makes of them (`tests/fixtures/tuning/t5_metrics.npz`).

To make the fixture again, run `python -m tests.server.quality.t5_metrics` in an environment with
`pip install t5==0.9.4`, whose metrics and postprocessors are those of the repository's commit e081111c.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).resolve().parents[2] / "fixtures" / "tuning" / "t5_metrics.npz"
CASES = 10_000
MOST_ROWS = 12

TWO, THREE = ("False", "True"), ("entailment", "contradiction", "neutral")
_NUMBERS = ("0.0", "1.6", "3.2", "5.0", "-2", "1e3", "3.2")
_WORDS = (
    "the", "a", "An", "cat", "Cat", "dog.", "sat,", "on", "mat", "C++", "C", "-5", "5", "!", "it's", "Zürich",
    "naïve", "x-ray", "1.5", "15", "few",
)  # fmt: skip
_NAMES = (
    "Bob", "bob", "Bob's hat", "the hat", "his hat", "fuzzy bunny", "bunny", "the  bunny", "few", "the", "",
    "Mary Ann", "Ann", "Tom's", "John and Mary",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What a metric gets: see `chorus_server.quality.metrics.measure`."""

    predictions: list[str]
    answers: list[tuple[str, ...]]
    labels: tuple[str, ...] = ()
    columns: dict[str, list[str]] = field(default_factory=dict)


class _Draw:
    """Only `random()` of the generator: it alone is the same in every version of Python."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)

    def upto(self, most: int) -> int:
        return int(self._chance.random() * most)

    def of(self, texts: Sequence[str]) -> str:
        return texts[self.upto(len(texts))]

    def text(self) -> str:
        return " ".join(self.of(_WORDS) for _ in range(self.upto(7)))


def cases(metric: str) -> Iterator[Case]:
    """The cases of a metric, always the same ones."""
    draw = _Draw(metric)
    for _ in range(CASES):
        yield _case(metric, draw, 1 + draw.upto(MOST_ROWS))


def _case(metric: str, draw: _Draw, rows: int) -> Case:
    if metric in ("f1_binary", "f1_over_all_answers", "matthews", "multirc_em", "accuracy", "f1_macro"):
        labels = THREE if metric == "f1_macro" else TWO
        true = [draw.of(labels) for _ in range(rows)]
        said = [draw.of((*labels, each, each, "maybe", "")) for each in true]
        groups = [str(draw.upto(4)) for _ in range(rows)]
        return Case(said, [(each,) for each in true], labels, {"group": groups})
    if metric in ("pearson", "spearman"):
        numbers = [[draw.of((*_NUMBERS, "huh", "")[: 7 + n * 2]) for _ in range(rows)] for n in (1, 0)]
        return Case(numbers[0], [(each,) for each in numbers[1]])
    if metric == "wsc_referent":
        said, true = ([draw.of(_NAMES[start:]) for _ in range(rows)] for start in (0, 0))
        truths = [draw.of(("true", "false")) for _ in range(rows)]
        return Case(said, [(each,) for each in true], (), {"label": truths})
    several = metric in ("squad_em", "squad_f1", "record_em", "record_f1")
    answers = [tuple(draw.text() for _ in range(1 + draw.upto(3) * several)) for _ in range(rows)]
    texts = [draw.of((draw.text(), draw.text(), *known)) for known in answers]
    return Case(texts, answers, (), {"group": [str(draw.upto(5)) for _ in range(rows)]})


def _values(metric: str) -> list[float]:
    """T5's own, as shares; 0 where it has no number."""
    from rouge_score import rouge_scorer
    from t5.data import postprocessors
    from t5.evaluation import metrics

    scorer = rouge_scorer.RougeScorer(["rougeL"])

    def ids(texts: Sequence[str], labels: Sequence[str]) -> Any:
        return np.array([postprocessors.string_label_to_class_id(each, labels) for each in texts])

    def value(case: Case) -> float:
        said, first = case.predictions, [known[0] for known in case.answers]
        if metric == "accuracy":
            return metrics.accuracy(first, said)["accuracy"]
        if metric == "f1_binary":
            return metrics.f1_score_with_invalid(ids(first, TWO), ids(said, TWO))["f1"]
        if metric == "f1_macro":
            mean = metrics.mean_multiclass_f1(num_classes=3)
            return mean(ids(first, THREE), ids(said, THREE))["mean_3class_f1"]
        if metric == "matthews":
            wrapped = metrics.sklearn_metrics_wrapper("matthews_corrcoef")
            return 100 * wrapped(ids(first, TWO), ids(said, TWO))["matthews_corrcoef"]
        if metric in ("pearson", "spearman"):
            x, y = ([postprocessors.string_to_float(text) for text in texts] for texts in (first, said))
            if len(x) < 2:
                return 0.0
            return next(iter(getattr(metrics, f"{metric}_corrcoef")(x, y).values()))
        if metric in ("multirc_em", "f1_over_all_answers"):
            of_groups = [{"idx/question": each} for each in case.columns["group"]]
            targets = [
                postprocessors.multirc(text, example=example, is_target=True)
                for text, example in zip(first, of_groups, strict=True)
            ]
            found = [postprocessors.multirc(text) for text in said]
            if metric == "f1_over_all_answers":
                return metrics.multirc_f1_over_all_answers(targets, found)["f1"]
            return metrics.mean_group_metric(metrics.all_match)(targets, found)["exact_match"]
        if metric in ("squad_em", "squad_f1"):
            return metrics.squad([list(known) for known in case.answers], said)[metric.removeprefix("squad_")]
        if metric in ("record_em", "record_f1"):
            examples = [
                {"answers": list(known), "idx/passage": 0, "idx/query": group}
                for known, group in zip(case.answers, case.columns["group"], strict=True)
            ]
            targets = [postprocessors.record("", example=each, is_target=True) for each in examples]
            found = [postprocessors.record(text) for text in said]
            measured = metrics.deduplicate_metric(metrics.squad)(targets, found)
            return measured[metric.removeprefix("record_")]
        if metric == "wsc_referent":
            found = [
                postprocessors.wsc_simple(text, example={"targets_pretokenized": referent})
                for text, referent in zip(said, first, strict=True)
            ]
            return metrics.accuracy([int(each == "true") for each in case.columns["label"]], found)[
                "accuracy"
            ]
        assert metric == "rouge_l"
        return 100 * float(
            np.mean([scorer.score(b, a)["rougeL"].fmeasure for a, b in zip(said, first, strict=True)])
        )

    return [float(np.nan_to_num(value(case))) / 100 for case in cases(metric)]


NAMES = (
    "accuracy", "f1_binary", "f1_macro", "f1_over_all_answers", "matthews", "pearson", "spearman", "squad_em",
    "squad_f1", "multirc_em", "record_em", "record_f1", "wsc_referent", "rouge_l",
)  # fmt: skip

if __name__ == "__main__":
    np.savez_compressed(FILE, **{name: np.array(_values(name)) for name in NAMES})
