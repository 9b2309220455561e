"""Digests are the names of content: the byte layout is a promise, so golden values pin it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from prompts_store.digests import canonical_json, manifest_digest, manifest_fields, prompt_digest
from prompts_store.records import PromptManifest

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
MANIFEST = PromptManifest(
    digest="00" * 32,
    length=2,
    width=3,
    base_fingerprint="11" * 32,
    template="{text}",
    labels=("no", "yes"),
    settings={"max_new_tokens": 4, "stop": ["."]},
)
OTHER: dict[str, Any] = {
    "digest": "22" * 32,
    "length": 3,
    "width": 2,
    "base_fingerprint": None,
    "template": "say {text}",
    "labels": ("yes", "no"),
    "settings": {"max_new_tokens": 5, "stop": ["."]},
    "kind": "another",
}
BOUNDED = settings(max_examples=100, deadline=None, derandomize=True)


def test_the_layout_is_two_lengths_and_the_rows() -> None:
    layout = struct.pack("<QQ6f", 2, 3, 0, 1, 2, 3, 4, 5)
    assert prompt_digest(VALUES) == hashlib.sha256(layout).hexdigest()


def test_golden_digest() -> None:
    assert prompt_digest(VALUES) == "75fcaa93dbff44546d721326b2931d1427d7102a41f6073b8c52ebd191b41df5"


def test_golden_manifest_digest() -> None:
    assert canonical_json(manifest_fields(MANIFEST)) == (
        b'{"base_fingerprint":"' + b"11" * 32 + b'","digest":"' + b"00" * 32 + b'","kind":"soft_prompt",'
        b'"labels":["no","yes"],"length":2,"settings":{"max_new_tokens":4,"stop":["."]},'
        b'"template":"{text}","width":3}'
    )


def test_shape_is_part_of_the_digest() -> None:
    assert prompt_digest(VALUES) != prompt_digest(VALUES.reshape(3, 2))


def test_bits_are_the_digest_not_numbers() -> None:
    zero = np.zeros((1, 1), np.float32)
    assert prompt_digest(zero) != prompt_digest(-zero)


@pytest.mark.parametrize(
    "same", [np.asfortranarray(VALUES), VALUES.astype(">f4"), np.repeat(VALUES, 2, axis=1)[:, ::2]]
)
def test_memory_order_is_not_part_of_the_digest(same: np.ndarray) -> None:
    assert prompt_digest(same) == prompt_digest(VALUES)


@pytest.mark.parametrize("wrong", [VALUES.astype("f8"), VALUES.ravel(), VALUES.astype("i4"), VALUES[None]])
def test_only_two_dimensional_float32_has_a_digest(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[P, D\] float32"):
        prompt_digest(wrong)


@BOUNDED
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=5)), st.data())
def test_any_changed_bit_changes_the_digest(values: np.ndarray, data: st.DataObject) -> None:
    bits = values.copy().view(np.uint32)
    position = data.draw(st.integers(0, bits.size - 1))
    bits.flat[position] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert prompt_digest(values) != prompt_digest(bits.view(np.float32))


@pytest.mark.parametrize("name", [field.name for field in fields(PromptManifest)])
def test_every_field_of_a_manifest_is_covered(name: str) -> None:
    assert manifest_digest(replace(MANIFEST, **{name: OTHER[name]})) != manifest_digest(MANIFEST)


def test_equal_settings_have_equal_digests() -> None:
    same = {"stop": (".",), "max_new_tokens": 4.0}
    assert manifest_digest(replace(MANIFEST, settings=same)) == manifest_digest(MANIFEST)


def test_a_truth_is_not_a_number() -> None:
    assert canonical_json({"a": True}) != canonical_json({"a": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, b"1"),
        (-0.0, b"0"),
        (0.1, b"0.1"),
        (1e300, b"1e+300"),
        (2.0**53, b"9007199254740992"),
        ("é", b'"\\u00e9"'),
    ],
)
def test_canonical_scalars(value: object, text: bytes) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1: 2}, {1, 2}, object()])
def test_what_json_cannot_say_has_no_canonical_form(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json({"a": value})
