"""Is what a caller publishes fit to be stored?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from prompts_store.digests import canonical_json, manifest_digest, prompt_digest
from prompts_store.errors import InvalidError
from prompts_store.labels import check_labels
from prompts_store.records import PromptManifest
from prompts_store.template import check_template
from prompts_store.text import has_control_characters, is_unicode, shown

MAX_SETTINGS_BYTES = 16_384
MAX_LINEAGE_BYTES = 65_536
MAX_METRICS_BYTES = 16_384
MAX_DESCRIPTION_CHARACTERS = 4_096
MAX_DEPTH = 32
MAX_ACTOR_CHARACTERS = 256

_FINGERPRINT = re.compile(r"[A-Za-z0-9:._-]{1,128}", re.ASCII)


def check_manifest(manifest: PromptManifest) -> str:
    """The manifest's digest, if it is one that a version can have.

    Raises:
        InvalidError: with the field at fault.
    """
    if manifest.kind != "soft_prompt":
        raise InvalidError(
            f"The kind {shown(manifest.kind)} is not known; this version stores 'soft_prompt'.", field="kind"
        )
    if manifest.base_fingerprint is not None:
        check_fingerprint(manifest.base_fingerprint, field="base_fingerprint")
    for field, count in (("length", manifest.length), ("width", manifest.width)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InvalidError(f"The {field} is {shown(count)}; it is a number from 1.", field=field)
    check_template(manifest.template)
    check_labels(manifest.labels)
    check_object(manifest.settings, field="settings", limit_bytes=MAX_SETTINGS_BYTES)
    return manifest_digest(manifest)


def check_fingerprint(fingerprint: object, *, field: str) -> str:
    """The fingerprint of a base model itself, if it has the form of one.

    Raises:
        InvalidError: with `field`.
    """
    if isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint):
        return fingerprint
    raise InvalidError(
        f"{shown(fingerprint)} is not a fingerprint; send what the model's page shows, or leave it out.",
        field=field,
    )


def check_values(values: npt.NDArray[np.float32], manifest: PromptManifest) -> None:
    """Raise InvalidError unless these are finite `[P, D]` float32 and the values that the manifest names."""
    if not isinstance(values, np.ndarray):
        raise InvalidError(f"The values are an array, not {type(values).__name__}.", field="values")
    if values.ndim != 2 or values.dtype != np.float32 or 0 in values.shape:
        raise InvalidError(
            f"A prompt is a [length, width] float32 array, not {values.dtype} with shape {values.shape}.",
            field="values",
        )
    if values.shape != (manifest.length, manifest.width):
        raise InvalidError(
            f"The values have shape {list(values.shape)}, the manifest says [{manifest.length}, "
            f"{manifest.width}].",
            field="values",
        )
    if not np.isfinite(values).all():
        raise InvalidError("The values hold NaN or infinities; a prompt is finite.", field="values")
    if prompt_digest(values) != manifest.digest:
        raise InvalidError("The values are not those of the manifest's digest.", field="digest")


def check_object(value: object, *, field: str, limit_bytes: int) -> dict[str, Any]:
    """A JSON object, as plain values.

    Raises:
        InvalidError: not an object, not JSON (NaN, bytes, lone surrogates), or larger than the limit.
    """
    if not isinstance(value, Mapping):
        raise InvalidError(f"{field} is a JSON object, not {type(value).__name__}.", field=field)
    try:
        size = len(canonical_json(value))
    except (ValueError, RecursionError) as error:
        raise InvalidError(
            f"{field} is not JSON: {error}; send finite numbers, texts and lists.", field=field
        ) from None
    if size > limit_bytes:
        raise InvalidError(f"{field} has {size} bytes as JSON; {limit_bytes} is the most.", field=field)
    plain: dict[str, Any] = _plain(value, field, MAX_DEPTH)
    return plain


def check_metrics(value: object) -> dict[str, float]:
    """Names and finite numbers.

    Raises:
        InvalidError: field `metrics`, or the metric's path.
    """
    metrics = check_object(value, field="metrics", limit_bytes=MAX_METRICS_BYTES)
    for name, number in metrics.items():
        if not is_finite(number):
            raise InvalidError(
                f"The metric {shown(name)} is {shown(number)}; a metric is a finite number.", field="metrics"
            )
    return {name: float(number) for name, number in metrics.items()}


def is_finite(number: object) -> TypeGuard[int | float]:
    """Whether a float holds this number: no bool, no NaN, no infinity, no integer beyond 1.8e308."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def check_text(value: object, *, field: str, limit: int = MAX_ACTOR_CHARACTERS) -> str:
    """A short text for people: no control characters but tabs and new lines.

    Raises:
        InvalidError: with `field`.
    """
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidError(f"{field} is a text of at most {limit} characters.", field=field)
    if not is_unicode(value) or has_control_characters(value, allowed="\t\n"):
        raise InvalidError(
            f"{field} holds control characters or lone surrogates; send plain text.", field=field
        )
    return value


def _plain(value: Any, field: str, depth: int) -> Any:
    """The value in JSON's own types. No NUL or lone surrogates in texts: PostgreSQL has no form for them."""
    if depth == 0:
        raise InvalidError(f"{field} is nested deeper than {MAX_DEPTH} levels.", field=field)
    if isinstance(value, str):
        if not is_unicode(value) or "\0" in value:
            raise InvalidError(f"{field} holds NUL or lone surrogates; send valid Unicode text.", field=field)
        return value
    if isinstance(value, Mapping):
        return {_plain(key, field, depth): _plain(item, field, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, field, depth - 1) for item in value]
    return value
