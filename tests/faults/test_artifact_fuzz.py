"""Any bytes at all: a sound prompt or an ArtifactError with a listed reason, and nothing else."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts_store.artifacts import REASONS, read_artifact, tensors
from prompts_store.artifacts.peft_config import parse_config
from prompts_store.artifacts.reasons import Reason
from prompts_store.artifacts.strict_json import parse_object
from prompts_store.errors import ArtifactError
from tests.faults.artifact_accepted import ACCEPTED
from tests.faults.artifact_builders import (
    CONFIG,
    LIMITS,
    VALUES,
    D,
    config_file,
    entry,
    safetensors_file,
    weights_file,
)
from tests.faults.artifact_refused import REFUSED

FUZZ = settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
PREFIXES = (b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x80\x04", b"\x10\0\0\0\0\0\0\0{")


@cache
def small_files() -> tuple[bytes, ...]:
    """Both corpora but for the files that are only large."""
    built = (case.build() for case in (*ACCEPTED, *REFUSED))
    return tuple(data for data in built if len(data) < 4000)


def sound_or_refused(data: bytes) -> None:
    try:
        artifact = read_artifact(data, limits=LIMITS)
    except ArtifactError as error:
        assert error.code in set(REASONS)
        assert error.message.isprintable()
        return
    assert artifact.values.ndim == 2 and artifact.values.shape[1] == D
    assert 1 <= artifact.values.shape[0] <= LIMITS.max_length
    assert np.isfinite(artifact.values).all()


@FUZZ
@given(st.sampled_from(PREFIXES), st.binary(max_size=400))
def test_random_bytes(prefix: bytes, data: bytes) -> None:
    sound_or_refused(prefix + data)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A known file with bytes changed, cut, repeated, or another file's bytes within."""
    data = bytearray(draw(st.sampled_from(small_files())))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        match draw(st.sampled_from(["change", "cut", "repeat", "splice"])):
            case "change":
                data[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
            case "cut":
                del data[start:stop]
            case "repeat":
                data[start:start] = data[start:stop]
            case "splice":
                other = draw(st.sampled_from(small_files()))
                data[start:stop] = other[start : start + 40]
    return bytes(data)


@FUZZ
@given(mutated())
def test_mutated_files(data: bytes) -> None:
    sound_or_refused(data)


def test_every_single_byte_of_every_format_changed() -> None:
    """Each byte of one file a format set to its extremes: no offset hides an unchecked field."""
    for case in ACCEPTED:
        data = case.build()
        if case.name in ("safetensors with metadata", "npy 1.0", "peft zip", "peft zip streamed"):
            for position in range(len(data)):
                for value in (0x00, 0x7F, 0xFF):
                    sound_or_refused(data[:position] + bytes([value]) + data[position + 1 :])


def test_every_length_of_every_format() -> None:
    for case in ACCEPTED:
        data = case.build()
        if len(data) < 2000:
            for length in range(len(data)):
                with pytest.raises(ArtifactError):
                    read_artifact(data[:length], limits=LIMITS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("dtype", "shape", "data_offsets")
CONFIG_FIELDS = (*CONFIG, "unknown")


@FUZZ
@given(st.sampled_from(FIELDS), JSON)
def test_any_json_in_a_header(field: str, value: object) -> None:
    sound_or_refused(safetensors_file({"prompt": entry(**{field: value})}))
    sound_or_refused(safetensors_file({"__metadata__": value, "prompt": entry()}))


@FUZZ
@given(st.sampled_from(CONFIG_FIELDS), JSON)
def test_any_json_in_a_configuration(field: str, value: object) -> None:
    try:
        parse_config(config_file(**{field: value}))
    except ArtifactError as error:
        assert error.code in set(REASONS)


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes_as_json(data: bytes) -> None:
    try:
        found = parse_object(data, what="It", reason=Reason.HEADER_INVALID, max_depth=4)
    except ArtifactError as error:
        assert error.code in (Reason.HEADER_INVALID, Reason.DUPLICATE_KEY)
    else:
        assert isinstance(found, dict)


def test_control_without_the_size_check_another_exception_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "check_size", lambda tensor: None)
    with pytest.raises(ValueError, match=r"buffer|reshape"):
        test_every_length_of_every_format()


def test_control_the_valid_files_are_valid() -> None:
    assert read_artifact(safetensors_file(VALUES), limits=LIMITS).values.tobytes() == VALUES.tobytes()
    assert len(weights_file()) > VALUES.nbytes
