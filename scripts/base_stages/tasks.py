"""Turns datasets into tasks of one form: `WORK/tasks/NAME.json`.

    {"name", "template", "labels", "licence", "source", "train": [[fields, label], ...], "report": [...]}

Train is learned from; report is only ever measured on. AG News is not used: its terms allow research, not
shipping. A plan names the tasks that it uses. No plan uses `paraphrase`, because somebody must read MRPC's
licence first.
"""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from base_stages.plan import write_document

Row = tuple[dict[str, str], str]
"""(template fields, label)."""

_PAIR = "sentence1: {sentence1} sentence2: {sentence2}"
_RESEARCH = "no licence stated; published for research"


@dataclass(frozen=True)
class Task:
    """One task with its rows.

    Attributes:
        shipped: whether its prompts are shipped; other tasks only fill the mixture.
    """

    name: str
    template: str
    labels: tuple[str, ...]
    licence: str
    source: str
    train: tuple[Row, ...]
    report: tuple[Row, ...]
    shipped: bool = True

    def texts(self, rows: Iterable[Row]) -> list[str]:
        """Filled templates."""
        filled = []
        for fields, _ in rows:
            text = self.template
            for name, value in fields.items():
                text = text.replace("{" + name + "}", value)
            filled.append(text)
        return filled


def read_tasks(folder: Path) -> list[Task]:
    """Every task in a folder, by name."""
    found = []
    for path in sorted(folder.glob("*.json")):
        fields = json.loads(path.read_text())
        for split in ("train", "report"):
            fields[split] = tuple((dict(row[0]), row[1]) for row in fields[split])
        found.append(Task(**{**fields, "labels": tuple(fields["labels"])}))
    if not found:
        raise SystemExit(
            f"{folder} has no tasks; run the stage `collect` with --data, or put task files there"
        )
    return found


def collect(data: Path, folder: Path, names: Sequence[str]) -> None:
    """Write the named tasks of the datasets below `data`. Raises SystemExit for an unknown name or a missing
    file."""
    if unknown := [name for name in names if name not in _MAKERS]:
        raise SystemExit(f"the plan's tasks name {unknown[0]}; there are {', '.join(_MAKERS)}")
    try:
        made = {name: asdict(_MAKERS[name](data)) for name in names}
    except FileNotFoundError as error:
        raise SystemExit(f"--data {data} lacks {error.filename}") from None
    for name, task in made.items():
        write_document(folder / f"{name}.json", task)


def _sentiment(data: Path) -> Task:
    names = {"0": "negative", "1": "positive"}
    train, report = (
        tuple(
            ({"text": row["sentence"].strip()}, names[row["label"]])
            for row in _tsv(data / "glue/SST-2" / file)
        )
        for file in ("train.tsv", "dev.tsv")
    )
    return Task("sentiment", "{text}", tuple(names.values()), _RESEARCH, "SST-2 (GLUE)", train, report)


def _question(data: Path) -> Task:
    names = ("description", "entity", "abbreviation", "person", "place", "number")
    train, report = (
        tuple(_numbered(data / "classification" / file, names))
        for file in ("TREC.train.all", "TREC.test.all")
    )
    return Task("question", "{text}", names, _RESEARCH, "TREC question types", train, report)


def _subjectivity(data: Path) -> Task:
    names = ("subjective", "objective")
    rows = list(_numbered(data / "classification/subj.all", names))
    order = np.random.Generator(np.random.Philox(7)).permutation(len(rows))
    report, train = ([rows[n] for n in part] for part in np.split(order, [1000]))
    return Task(
        "subjectivity", "{text}", names, _RESEARCH, "Subj (Pang and Lee 2004)", tuple(train), tuple(report)
    )


def _paraphrase(data: Path) -> Task:
    names = {"0": "different", "1": "same"}
    train, report = (
        tuple(
            ({"sentence1": row["#1 String"], "sentence2": row["#2 String"]}, names[row["Quality"]])
            for row in _tsv(data / "glue/MRPC" / file)
        )
        for file in ("train.tsv", "dev.tsv")
    )
    licence = "Microsoft Research shared source licence (MRPC); check before shipping"
    return Task("paraphrase", _PAIR, tuple(names.values()), licence, "MRPC (GLUE)", train, report)


def _entailment(data: Path) -> Task:
    names = {"not_entailment": "no", "entailment": "yes"}
    train, report = (
        tuple(
            ({"sentence1": row["sentence1"], "sentence2": row["sentence2"]}, names[row["label"]])
            for row in _tsv(data / "glue/RTE" / file)
        )
        for file in ("train.tsv", "dev.tsv")
    )
    return Task("entailment", _PAIR, tuple(names.values()), _RESEARCH, "RTE (GLUE)", train, report)


def _banking(data: Path) -> Task:
    folder = data / "classification/banking77"
    train, report = (
        tuple(
            ({"text": row["text"].strip()}, row["category"].replace("_", " ")) for row in _csv(folder / file)
        )
        for file in ("train.csv", "test.csv")
    )
    labels = tuple(sorted({label for _, label in train}))
    return Task("banking", "{text}", labels, "CC-BY-4.0", "Banking77 (PolyAI)", train, report)


def _reviews(data: Path) -> Task:
    """Sentences of product reviews that twenty people rated from -4 to 4 (Hutto and Gilbert 2014). Ratings
    nearer to 0 than 1 are left out, and no review is in both splits."""
    names = ("negative", "positive")
    file = data / "reviews/amazonReviewSnippets_GroundTruth.txt"
    by_review: dict[str, list[Row]] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        number, rating, sentence = line.split("\t", 2)
        if abs(float(rating)) >= 1 and sentence.strip():
            row: Row = ({"text": html.unescape(sentence.strip())}, names[float(rating) > 0])
            by_review.setdefault(number.split("_")[0], []).append(row)
    reviews = list(by_review.values())
    order = np.random.Generator(np.random.Philox(7)).permutation(len(reviews))
    report, train = (
        tuple(row for n in part for row in reviews[n]) for part in np.split(order, [len(reviews) // 4])
    )
    return Task("reviews", "{text}", names, "MIT", "product reviews (Hutto and Gilbert 2014)", train, report)


def _boolq(data: Path) -> Task:
    train, report = (
        tuple(
            ({"question": row["question"], "passage": row["passage"][:600]}, "yes" if row["label"] else "no")
            for row in _jsonl(data / "superglue/BoolQ" / file)
        )
        for file in ("train.jsonl", "val.jsonl")
    )
    template = "question: {question} passage: {passage}"
    return Task("boolq", template, ("no", "yes"), "CC-BY-SA-3.0", "BoolQ (SuperGLUE)", train, report, False)


def _commitment(data: Path) -> Task:
    train, report = (
        tuple(
            ({"premise": row["premise"], "hypothesis": row["hypothesis"]}, row["label"])
            for row in _jsonl(data / "superglue/CB" / file)
        )
        for file in ("train.jsonl", "val.jsonl")
    )
    labels = ("contradiction", "entailment", "neutral")
    template = "hypothesis: {hypothesis} premise: {premise}"
    return Task("commitment", template, labels, _RESEARCH, "CB (SuperGLUE)", train, report, False)


_MAKERS: dict[str, Callable[[Path], Task]] = {
    "sentiment": _sentiment, "question": _question, "subjectivity": _subjectivity, "paraphrase": _paraphrase,
    "entailment": _entailment, "banking": _banking, "reviews": _reviews, "boolq": _boolq,
    "commitment": _commitment,
}  # fmt: skip


def _numbered(path: Path, names: tuple[str, ...]) -> Iterable[Row]:
    """Lines of the form `0 text`."""
    for line in path.read_text(encoding="latin-1").splitlines():
        number, _, text = line.strip().partition(" ")
        yield {"text": text.strip()}, names[int(number)]


def _tsv(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _csv(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _jsonl(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)
