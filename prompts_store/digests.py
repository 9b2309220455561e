"""Digests: names made from content.

A prompt digest is the SHA-256 of exactly these bytes, whatever file the values came from:

    P           unsigned 64-bit little-endian
    D           unsigned 64-bit little-endian
    values      P * D float32, little-endian, row after row

So `-0.0` and `0.0` have different digests, and a `[2, 3]` prompt differs from a `[3, 2]` one with the same
numbers.

A manifest digest is the SHA-256 of the manifest as canonical JSON: every field of `PromptManifest` by its
name, keys sorted at every depth, no whitespace, ASCII only (other characters as `\\uXXXX`). A float that is a
whole number is written as that integer, because `"temperature": 1` and `"temperature": 1.0` are the same
setting.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from prompts_store.records import PromptManifest

# Above this, floats cannot represent every integer, so writing one as an integer would claim a precision it
# lacks.
_EXACT_INTEGERS = 2.0**53


def prompt_digest(values: np.ndarray[Any, Any]) -> str:
    """SHA-256 (hex) of a prompt's shape and values; the module's docstring gives the byte layout.

    Args:
        values: `[P, D]` float32, in any memory order.

    Raises:
        ValueError: it is not two-dimensional or not float32. The caller converts it first, so that rounding
            is the caller's decision.
    """
    if values.ndim != 2 or values.dtype.kind != "f" or values.dtype.itemsize != 4:
        raise ValueError(
            f"a digest needs a [P, D] float32 array, not {values.dtype} with shape {values.shape}"
        )
    digest = hashlib.sha256(struct.pack("<QQ", *values.shape))
    digest.update(np.ascontiguousarray(values, dtype="<f4").data)
    return digest.hexdigest()


def manifest_digest(manifest: PromptManifest) -> str:
    """SHA-256 (hex) of a manifest's canonical JSON.

    Raises:
        ValueError: `settings` has a value that JSON cannot express (NaN, bytes, keys other than text).
    """
    return hashlib.sha256(canonical_json(manifest_fields(manifest))).hexdigest()


def manifest_fields(manifest: PromptManifest) -> dict[str, Any]:
    """Every field of a manifest by name, as plain JSON values."""
    return {field.name: _canonical(getattr(manifest, field.name)) for field in fields(manifest)}


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value, so that equal values have equal digests.

    Raises:
        ValueError: JSON cannot express the value.
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode(
        "ascii"
    )


def canonical_text(value: Any) -> str:
    """The same value as a text to be read: canonical JSON, with other characters than ASCII as they are.

    Raises:
        ValueError: JSON cannot express the value.
    """
    return json.dumps(
        _canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def _canonical(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _canonical_number(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("an object's keys are strings")
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    raise ValueError(f"{type(value).__name__} has no JSON form")


def _canonical_number(value: float) -> int | float:
    if not math.isfinite(value):
        raise ValueError("NaN and infinities have no JSON form")
    if value.is_integer() and abs(value) <= _EXACT_INTEGERS:
        return int(value)
    return value
