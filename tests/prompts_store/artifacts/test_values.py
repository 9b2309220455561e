"""Conversions are exact where they can be and say so where they cannot; the checks agree with the real
casts."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts_store.artifacts import ArtifactLimits, read_artifact, write_artifact
from prompts_store.errors import ArtifactError

LIMITS = ArtifactLimits(width=2, max_length=4, compute_dtype="bfloat16")
BOUNDED = settings(max_examples=300, deadline=None, derandomize=True)


def npy(values: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def read(values: np.ndarray[Any, Any], **changes: Any) -> Any:
    return read_artifact(npy(values), limits=dataclasses.replace(LIMITS, **changes))


@BOUNDED
@given(st.integers(0, 2**32 - 1))
def test_overflow_is_refused_exactly_when_the_cast_overflows(bits: int) -> None:
    value = np.array([[bits, 0]], np.uint32).view(np.float32)
    # A signalling NaN or an overflow may warn inside the cast; the answer is what counts.
    with np.errstate(all="ignore"):
        cast = value.astype(ml_dtypes.bfloat16).astype(np.float32)
    if np.isfinite(cast).all():
        assert read(value).values.tobytes() == value.tobytes()
    else:
        with pytest.raises(ArtifactError) as caught:
            read(value)
        assert caught.value.code == ("overflow" if np.isfinite(value).all() else "not_finite")


@pytest.mark.parametrize(("bits", "legal"), [(0x7F7F7FFF, True), (0x7F7F8000, False), (0x7F7FFFFF, False)])
def test_the_bound_of_bfloat16(bits: int, legal: bool) -> None:
    value = np.array([[bits, bits | 0x80000000]], np.uint32).view(np.float32)
    assert read(value, compute_dtype="float32").values.tobytes() == value.tobytes()
    if legal:
        assert read(value).values.tobytes() == value.tobytes()
    else:
        with pytest.raises(ArtifactError, match="becomes an infinity in bfloat16"):
            read(value)


@BOUNDED
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
def test_doubles_are_rounded_to_nearest_and_counted(pair: list[float]) -> None:
    values = np.array([pair])
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if np.isinf(rounded).any():
        with pytest.raises(ArtifactError, match="becomes an infinity in float32"):
            read(values, compute_dtype="float32")
        return
    artifact = read(values, compute_dtype="float32")
    assert artifact.values.tobytes() == rounded.tobytes()
    changed = int((rounded.astype(np.float64) != values).sum())
    assert artifact.notes == (f"The values were float64, rounded to float32 ({changed} of 2 changed).",)


def test_equal_values_have_one_digest_whatever_the_file() -> None:
    values = np.array([[0.5, -2.0], [1.5, 3.0]], np.float32)
    files = [
        npy(values),
        npy(values.astype("f8")),
        npy(values.astype("f2")),
        npy(np.asfortranarray(values.astype(">f8"))),
        write_artifact(values, "safetensors"),
        write_artifact(values, "peft"),
    ]
    assert len({read_artifact(data, limits=LIMITS).digest for data in files}) == 1


def test_a_bad_value_far_down_a_long_prompt_is_found_and_named() -> None:
    values = np.zeros((600, 1024), np.float32)
    values[599, 1000] = np.inf
    with pytest.raises(ArtifactError, match="row 599, column 1000 is an infinity"):
        read(values, width=1024, max_length=600)
    values[599, 1000] = 3.4e38
    with pytest.raises(ArtifactError, match="row 599, column 1000 is finite but"):
        read(values, width=1024, max_length=600)


def test_values_are_a_copy_that_nobody_can_change() -> None:
    data = bytearray(npy(np.ones((1, 2), np.float32)))
    artifact = read_artifact(bytes(data), limits=LIMITS)
    assert artifact.values.base is None
    with pytest.raises(ValueError, match="read-only"):
        artifact.values[0, 0] = 2


def test_published_magnitudes_are_legal() -> None:
    values = np.array([[750.0, -749.5], [1385.0, 0.0]], np.float32)
    assert read(values).values.tobytes() == values.tobytes()
