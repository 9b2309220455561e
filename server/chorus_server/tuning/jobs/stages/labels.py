"""Labels of a prompt whose document leaves them to its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from chorus_server.tuning.data.examples import TextRow, target_ids
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.jobs.attempts.config import TuningBase
from chorus_server.tuning.jobs.stages.datasets import CUT_FROM_TRAIN, Dataset
from prompts_store.errors import InvalidError
from prompts_store.tasks.labels import check_labels

FEWEST, MOST = 2, 20
EACH_AT_LEAST = 2
ROWS_A_LABEL = 10


def entry_with_labels(
    entry: PromptDocument, dataset: Dataset, base: TuningBase
) -> tuple[PromptDocument, list[str]]:
    """The prompt with the labels that its data has, and warnings: why answers that look like labels became
    none."""
    cut = dataset.lineage["chosen_on"] == CUT_FROM_TRAIN and dataset.validation is not None
    train = (*dataset.train.rows, *(dataset.validation.rows if cut and dataset.validation else ()))
    labels = labels_among(train)
    if not labels:
        return entry.with_labels(()), []
    others = [row for split in (dataset.validation, dataset.test) if split is not None for row in split.rows]
    why = _unfit(labels, others, entry.recipe, base)
    if why is None:
        return entry.with_labels(labels), []
    return entry.with_labels(()), [f"the answers did not become labels, since {why}"]


def labels_among(rows: Iterable[TextRow]) -> tuple[str, ...]:
    """The different answers of a train split, sorted, if they are so few that they must be labels."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.answers)
        if len(row.answers) > 1 or len(counts) > MOST:
            return ()
    few = len(counts) >= FEWEST and len(counts) * ROWS_A_LABEL <= counts.total()
    return tuple(sorted(counts)) if few and min(counts.values()) >= EACH_AT_LEAST else ()


def _unfit(
    labels: tuple[str, ...], others: Iterable[TextRow], recipe: Recipe, base: TuningBase
) -> str | None:
    """Why these cannot be labels."""
    known = set(labels)
    for row in others:
        if not known.issuperset(row.answers):
            return f"row {row.row} of another split has an answer that train lacks"
    try:
        check_labels(labels)
    except InvalidError as error:
        return f"they would be refused: {error.message}"
    ids = [target_ids(label, base.vocabulary, recipe) for label in labels]
    if len(set(ids)) < len(ids):
        return "two of them have the same tokens"
    longest = max(map(len, ids))
    if longest > base.max_label_tokens:
        return f"one has {longest} tokens with </s>, and this server ranks {base.max_label_tokens} at most"
    return None
