"""The fields of a job document that `client.tuning.start` passes on.

Made by `python -m chorus_server.reference`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class JobFields(TypedDict, total=False):
    """docs/tuning.md has their bounds and defaults. A field that is None is left out."""

    index: int | None
    """Number from which its random keys are made, so that prompt 3 of a job can be trained alone with the
    same result. When left out: its place in the job."""

    template: str | None
    """How columns become text; only `{name}` fields are possible."""

    columns: Mapping[str, str] | None
    """Column of each template field whose name differs from its column's."""

    target: str | None
    """Column of the answer."""

    target_texts: Mapping[str, str] | None
    """Answer for each value of that column, such as `negative` for `0`."""

    labels: Sequence[str] | None
    """The answers of a classification task, in order; none for free text."""

    labels_from_data: bool | None
    """Make the answers of the train split the labels, if it has 2 to 20 different ones, each at least twice
    and together at most a tenth of its rows. Else it stays free text."""

    metrics: Sequence[str] | None
    """Metrics whose mean chooses the checkpoint. When left out: `accuracy` with labels, `exact_match`
    without."""

    metric_columns: Mapping[str, str] | None
    """Columns that metrics need beside the answer: `group`, the question or query of a row; `label`, whether
    its referent is the right one. Only validation and test rows need them."""

    answer_by: str | None
    """How labels are answered on validation and test: `ranked`, the most probable one; `greedy`, the text
    that the model writes, as in the paper. Without labels always `greedy`."""

    description: str | None
    """Description of the task."""

    settings: Mapping[str, Any] | None
    """Default generation settings of the version."""

    initial_prompt: str | None
    """Reference of the prompt to start from. It is pinned to a version when the job is created."""

    prompts: Sequence[Mapping[str, Any]] | None
    """Several prompts in one compiled step. Fields beside this list are defaults for each of them."""

    seed: int | None
    """Seed of everything random in the job, together with each prompt's `index`."""

    ensemble: int | None
    """Make this many prompts from the same data, and an ensemble of them."""

    ensemble_name: str | None
    """Name of that ensemble. When left out: the task's name and `-ensemble`."""

    seeds: int | None
    """Train every recipe so often, with the indices from `index` on. The result has mean and deviation, and
    the best seed becomes a version."""

    sweep: Mapping[str, Any] | None
    """Try several recipes, and make a version of the best."""

    promote: bool | None
    """Move `@live` to the new version (for an ensemble: to the best on validation). It needs the scope
    `prompts:write`. A task's first version gets it anyway."""

    base_fingerprint: str | None
    """Fingerprint of a base model; the job is refused on any other."""

    metadata: Mapping[str, str] | None
    """Your own notes, kept with the job."""
