"""The datasets that can be prepared, by name."""

from __future__ import annotations

from collections.abc import Mapping

from chorus.datasets.dataset import Dataset
from chorus.datasets.glue import GLUE
from chorus.datasets.questions import MRQA, SQUAD
from chorus.datasets.superglue import SUPERGLUE
from chorus.datasets.trec import TREC

DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset for dataset in (*SUPERGLUE, *GLUE, SQUAD, MRQA, TREC)
}
