"""TREC's questions by the kind of their answer: six coarse classes. T5 has no form of it: the text is the
question."""

from __future__ import annotations

from collections.abc import Iterator

from chorus.datasets.dataset import Dataset, Row
from chorus.datasets.official import OfficialFile

# The official files have `DESC:manner How ...`; others that are passed on have `0 How ...`.
_CLASSES = {
    "DESC": "description", "ENTY": "entity", "ABBR": "abbreviation", "HUM": "human", "LOC": "location",
    "NUM": "number", "0": "description", "1": "entity", "2": "abbreviation", "3": "human", "4": "location",
    "5": "number",
}  # fmt: skip


def _trec(file: OfficialFile) -> Iterator[Row]:
    for number, line in file.latin_lines():
        said, _, text = line.partition(" ")
        label = _CLASSES.get(said.partition(":")[0])
        if label is None or not text.strip():
            file.refuse("it is not as in 'DESC:manner How did it begin ?'", number)
        yield {"text": text.strip(), "label": label}


TREC = Dataset(
    "trec",
    "",
    {"train": ("train_5500.label", "TREC.train.all"), "dev": ("TREC_10.label", "TREC.test.all")},
    "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
    _trec,
    "{text}",
    ("accuracy",),
    prefix="",
    labels=tuple(dict.fromkeys(_CLASSES.values())),
)
