"""The fields of a job document that `client.tuning.start` passes on.

Made by `python -m chorus_server.reference`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class JobFields(TypedDict, total=False):
    """docs/tuning.md has their bounds and defaults. A field that is None is left out."""

    index: int | None
    """What its random keys fold from, so that prompt 3 of a job can be trained alone and come out the same;
    its place in the job when left out."""

    template: str | None
    """How columns become text, `{name}` fields only."""

    columns: Mapping[str, str] | None
    """Column by template field, where their names differ."""

    target: str | None
    """Column of the answer."""

    target_texts: Mapping[str, str] | None
    """Answer by the column's value, such as `0` to `negative`."""

    labels: Sequence[str] | None
    """Answers of a classification task, in order; none for free text."""

    metrics: Sequence[str] | None
    """Their mean chooses the checkpoint; when left out, `accuracy` with labels and `exact_match` without."""

    description: str | None
    """Of the task."""

    settings: Mapping[str, Any] | None
    """Default generation settings of the version."""

    initial_prompt: str | None
    """Reference of the prompt to start from; pinned to its version when the job is made."""

    prompts: Sequence[Mapping[str, Any]] | None
    """Several prompts in one compiled step. What stands beside this list is the default of each."""

    seed: int | None
    """Of everything random in the job, with each prompt's `index`."""

    ensemble: int | None
    """Make so many prompts of the same data, and an ensemble of them."""

    ensemble_name: str | None
    """What they are registered as; the task's name and `-ensemble` when left out."""

    promote: bool | None
    """Move `@live` to the new version (of an ensemble's prompts, to the best on validation); needs the scope
    `prompts:write`. A task's first version gets it anyway."""

    base_fingerprint: str | None
    """Refuse the job on another base model."""
