"""What is known of one public dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chorus.datasets.official import OfficialFile

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """How a dataset's files become rows, and rows a prompt.

    Attributes:
        folder: the folder in which it is published, below the one that a user may name.
        files: names of each split's file; the first that exists is read. `train` is trained on, `dev` is the
            job's test split, any other is there to be evaluated on.
        official: where the files are published.
        rows: a file's rows: the template's fields, `label`, and whatever metrics need.
        template, labels, metrics, metric_columns, recipe: fields of the job document.
        normalizer: how a version of it rewrites the template's fields.
        trains: a row of the train split as training has it: none, one, or one for each answer.
        counted: the column whose values are counted, beside what they are called; None for free text.
        prefix: what T5 writes before the text, and this does not.
    """

    name: str
    folder: str
    files: Mapping[str, Sequence[str]]
    official: str
    rows: Callable[[OfficialFile], Iterator[Row]]
    template: str
    metrics: Sequence[str]
    prefix: str
    labels: Sequence[str] = ()
    metric_columns: Mapping[str, str] = field(default_factory=dict)
    normalizer: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    trains: Callable[[Row], Iterator[Row]] = lambda row: iter((row,))
    counted: str | None = "label"

    @property
    def document(self) -> dict[str, Any]:
        """The fields of a job document that say what the rows mean."""
        found: dict[str, Any] = {"template": self.template, "metrics": list(self.metrics)}
        if self.labels:
            found["labels"] = list(self.labels)
        if self.metric_columns:
            found["metric_columns"] = dict(self.metric_columns)
        if self.normalizer is not None:
            found["settings"] = {"normalizer": self.normalizer}
        if self.recipe:
            found["recipe"] = dict(self.recipe)
        return found
