"""Checks whether what a caller publishes can be stored: the manifest, the values, the metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prompts_store.checks import check_fingerprint, check_object, is_finite
from prompts_store.digests import manifest_digest, prompt_digest
from prompts_store.errors import InvalidError
from prompts_store.records import PromptManifest
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.template import check_template
from prompts_store.text import shown

MAX_SETTINGS_BYTES = 16_384
MAX_LINEAGE_BYTES = 65_536
MAX_METRICS_BYTES = 16_384
MAX_DESCRIPTION_CHARACTERS = 4_096


def check_manifest(manifest: PromptManifest) -> str:
    """Return the manifest's digest if a version can have this manifest.

    Raises:
        InvalidError: names the field at fault.
    """
    if manifest.kind != "soft_prompt":
        raise InvalidError(
            f"The kind {shown(manifest.kind)} is not known; this release stores 'soft_prompt'.", field="kind"
        )
    if manifest.base_fingerprint is not None:
        check_fingerprint(manifest.base_fingerprint, field="base_fingerprint")
    for field, count in (("length", manifest.length), ("width", manifest.width)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InvalidError(
                f"The {field} is {shown(count)}; it must be a number of at least 1.", field=field
            )
    check_template(manifest.template)
    check_labels(manifest.labels)
    check_object(manifest.settings, field="settings", limit_bytes=MAX_SETTINGS_BYTES)
    return manifest_digest(manifest)


def check_values(values: npt.NDArray[np.float32], manifest: PromptManifest) -> None:
    """Raise InvalidError unless these are finite `[P, D]` float32 values and those that the manifest
    names."""
    if not isinstance(values, np.ndarray):
        raise InvalidError(f"The values must be an array, not {type(values).__name__}.", field="values")
    if values.ndim != 2 or values.dtype != np.float32 or 0 in values.shape:
        raise InvalidError(
            f"A prompt must be a [length, width] float32 array, not {values.dtype} with shape "
            f"{values.shape}.",
            field="values",
        )
    if values.shape != (manifest.length, manifest.width):
        raise InvalidError(
            f"The values have shape {list(values.shape)}, but the manifest says [{manifest.length}, "
            f"{manifest.width}].",
            field="values",
        )
    if not np.isfinite(values).all():
        raise InvalidError("The values have NaN or infinities; a prompt must be finite.", field="values")
    if prompt_digest(values) != manifest.digest:
        raise InvalidError("The values are not those of the manifest's digest.", field="digest")


def check_metrics(value: object) -> dict[str, float]:
    """Return the metrics if they are names with finite numbers.

    Raises:
        InvalidError: field `metrics`, or the metric's path.
    """
    metrics = check_object(value, field="metrics", limit_bytes=MAX_METRICS_BYTES)
    for name, number in metrics.items():
        if not is_finite(number):
            raise InvalidError(
                f"The metric {shown(name)} is {shown(number)}; a metric must be a finite number.",
                field="metrics",
            )
    return {name: float(number) for name, number in metrics.items()}
