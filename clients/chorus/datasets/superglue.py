"""SuperGLUE: rows as tensorflow-datasets reads them, in the forms that T5 gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chorus.datasets.dataset import Dataset, Row
from chorus.datasets.official import OfficialFile
from chorus.datasets.winograd import marked

OFFICIAL = "https://super.gluebenchmark.com/tasks"
TRUTH = ("False", "True")
_FILES = {"train": ("train.jsonl",), "dev": ("val.jsonl",)}


def _columns(*names: str, label: Callable[[Any], str | None]) -> Callable[[OfficialFile], Iterator[Row]]:
    """Rows with these fields; `label` says what the file's value is called, None if it is no label."""

    def rows(file: OfficialFile) -> Iterator[Row]:
        for number, row in file.lines():
            fields = {name: file.value(row, name, number) for name in names}
            said = label(file.value(row, "label", number, object))
            if said is None:
                file.refuse(f"the label {ascii(row['label'])[:40]} is none of the set's", number)
            yield {**fields, "label": said}

    return rows


def _truth(value: Any) -> str | None:
    return TRUTH[value] if isinstance(value, bool | int) and value in (0, 1) else None


def _one_of(*labels: str) -> Callable[[Any], str | None]:
    return lambda value: value if value in labels else None


def _choice(value: Any) -> str | None:
    return ("choice1", "choice2")[value] if isinstance(value, int) and value in (0, 1) else None


def _multirc(file: OfficialFile) -> Iterator[Row]:
    for number, row in file.lines():
        passage = file.value(row, "passage", number, dict)
        for question in file.value(passage, "questions", number, list):
            for answer in file.value(question, "answers", number, list):
                label = _truth(file.value(answer, "label", number, int))
                if label is None:
                    file.refuse("a label is neither 0 nor 1", number)
                yield {
                    "question": file.value(question, "question", number),
                    "answer": file.value(answer, "text", number),
                    "paragraph": file.value(passage, "text", number),
                    "label": label,
                    "question_id": str(file.value(question, "idx", number, int)),
                }


def _record(file: OfficialFile) -> Iterator[Row]:
    for number, row in file.lines():
        passage = file.value(row, "passage", number, dict)
        text = file.value(passage, "text", number)
        entities = sorted(
            {
                text[file.value(each, "start", number, int) : file.value(each, "end", number, int) + 1]
                for each in file.value(passage, "entities", number, list)
            }
        )
        for query in file.value(row, "qas", number, list):
            answers = {
                file.value(each, "text", number) for each in file.value(query, "answers", number, list)
            }
            if not answers:
                file.refuse("a query has no answer (official test sets have none)", number)
            yield {
                "query": file.value(query, "query", number),
                "entities": ", ".join(entities),
                "passage": text,
                "label": sorted(answers),
                "query_id": str(file.value(query, "idx", number, int)),
            }


def _for_each_answer(row: Row) -> Iterator[Row]:
    """One example an answer: that one is trained on, and the others are accepted where it is measured."""
    for answer in row["label"]:
        yield {**row, "label": [answer, *(other for other in row["label"] if other != answer)]}


def _wsc(file: OfficialFile) -> Iterator[Row]:
    for number, row in file.lines():
        label = _truth(file.value(row, "label", number, bool))
        text, referent = marked(file, number, row)
        yield {"text": text, "label": referent, "correct": label == "True"}


def _correct_referents(row: Row) -> Iterator[Row]:
    if row["correct"]:
        yield row


def _superglue(
    name: str, folder: str, rows: Any, template: str, metrics: tuple[str, ...], **more: Any
) -> Dataset:
    more.setdefault("prefix", name)
    return Dataset(f"superglue/{name}", folder, _FILES, OFFICIAL, rows, template, metrics, **more)


def _words(*words: str) -> dict[str, Any]:
    """First values for a set without labels, as in the paper (section 3.2)."""
    return {"initialiser": "words", "initialiser_words": list(words)}


_ENTAILMENT = ("entailment", "contradiction", "neutral")
_RTE = ("entailment", "not_entailment")

SUPERGLUE = (
    _superglue(
        "boolq",
        "BoolQ",
        _columns("passage", "question", label=_truth),
        "passage: {passage} question: {question}",
        ("accuracy",),
        labels=TRUTH,
    ),
    _superglue(
        "cb",
        "CB",
        _columns("hypothesis", "premise", label=_one_of(*_ENTAILMENT)),
        "hypothesis: {hypothesis} premise: {premise}",
        ("f1_macro", "accuracy"),
        labels=_ENTAILMENT,
    ),
    _superglue(
        "copa",
        "COPA",
        _columns("choice1", "choice2", "premise", "question", label=_choice),
        "choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}",
        ("accuracy",),
        labels=("choice1", "choice2"),
    ),
    _superglue(
        "multirc",
        "MultiRC",
        _multirc,
        "question: {question} answer: {answer} paragraph: {paragraph}",
        ("f1_over_all_answers", "multirc_em"),
        labels=TRUTH,
        metric_columns={"group": "question_id"},
        normalizer="t5_multirc",
    ),
    _superglue(
        "record",
        "ReCoRD",
        _record,
        "query: {query} entities: {entities} passage: {passage}",
        ("record_f1", "record_em"),
        metric_columns={"group": "query_id"},
        normalizer="t5_record",
        recipe=_words("commonsense", "reasoning", "reading", "comprehension"),
        trains=_for_each_answer,
        counted=None,
    ),
    _superglue(
        "rte",
        "RTE",
        _columns("hypothesis", "premise", label=_one_of(*_RTE)),
        "hypothesis: {hypothesis} premise: {premise}",
        ("accuracy",),
        labels=_RTE,
    ),
    _superglue(
        "wic",
        "WiC",
        _columns("sentence1", "sentence2", "word", label=_truth),
        "sentence1: {sentence1} sentence2: {sentence2} word: {word}",
        ("accuracy",),
        labels=TRUTH,
    ),
    _superglue(
        "wsc",
        "WSC",
        _wsc,
        "{text}",
        ("wsc_referent",),
        prefix="wsc:",
        metric_columns={"label": "correct"},
        recipe=_words("commonsense", "pronoun", "resolution"),
        trains=_correct_referents,
        counted="correct",
    ),
)
