"""SQuAD and the sets of MRQA's shared task, in the form of T5's `squad`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from chorus.datasets.dataset import Dataset, Row
from chorus.datasets.official import OfficialFile

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_SPACES = re.compile(r"[\t\n\f\r ]+")
_ANY_SPACES = re.compile(r"\s+")


def pad_punctuation(text: str) -> str:
    """What the version's normaliser `t5_punctuation` does to questions: answers are learned in that form
    too."""
    return _SPACES.sub(" ", _PUNCTUATION.sub(r" \1 ", text))


def _squad(file: OfficialFile) -> Iterator[Row]:
    document = file.document()
    if not isinstance(document, dict):
        file.refuse("it is not an object with 'data'")
    found: dict[str, Row] = {}
    for number, article in enumerate(file.value(document, "data", 1, list), 1):
        for paragraph in file.value(article, "paragraphs", number, list):
            for question in file.value(paragraph, "qas", number, list):
                id = file.value(question, "id", number)
                answers = _texts(file, question, number)
                if id in found:  # a file may repeat a question for each of its answers
                    found[id]["label"] += answers
                    continue
                found[id] = {
                    "question": file.value(question, "question", number),
                    "context": file.value(paragraph, "context", number),
                    "label": answers,
                    "id": id,
                }
    yield from found.values()


def _texts(file: OfficialFile, question: dict[str, Any], number: int) -> list[str]:
    answers = file.value(question, "answers", number, list)
    if not answers:
        file.refuse("a question has no answer; this is the form of version 1.1", number)
    return [pad_punctuation(file.value(each, "text", number)) for each in answers]


def _mrqa(file: OfficialFile) -> Iterator[Row]:
    for number, row in file.lines():
        if "header" in row:
            continue
        context = _ANY_SPACES.sub(" ", file.value(row, "context", number))
        for question in file.value(row, "qas", number, list):
            answers = file.value(question, "answers", number, list)
            detected = file.value(question, "detected_answers", number, list)
            if not answers or not detected:
                file.refuse("a question has no answer", number)
            first = file.value(detected[0], "text", number)
            yield {
                "question": _ANY_SPACES.sub(" ", file.value(question, "question", number)),
                "context": context,
                "label": [pad_punctuation(_ANY_SPACES.sub(" ", text)) for text in answers],
                "id": file.value(question, "qid", number),
                "detected": pad_punctuation(_ANY_SPACES.sub(" ", first)),
            }


def _detected_answer(row: Row) -> Iterator[Row]:
    """The answer as the context has it is trained on, and the others are accepted where it is measured."""
    yield {**row, "label": [row["detected"], *(each for each in row["label"] if each != row["detected"])]}


_FORM: dict[str, Any] = {
    "template": "question: {question} context: {context}",
    "metrics": ("squad_f1", "squad_em"),
    "normalizer": "t5_punctuation",
    "recipe": {"max_target_tokens": 128},
    "counted": None,
    "prefix": "",
}

SQUAD = Dataset(
    "squad",
    "",
    {"train": ("train-v1.1.json",), "dev": ("dev-v1.1.json",)},
    "https://rajpurkar.github.io/SQuAD-explorer/",
    _squad,
    **_FORM,
)
MRQA = Dataset(
    "mrqa",
    "",
    {"*": ("*.jsonl.gz", "*.jsonl")},
    "https://github.com/mrqa/MRQA-Shared-Task-2019 (download_out_of_domain_dev.sh)",
    _mrqa,
    trains=_detected_answer,
    **_FORM,
)
