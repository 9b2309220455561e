"""The refuse corpus, part two: safetensors and `.npy` files."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np

from prompts_store.artifacts import Reason
from tests.faults.artifact_builders import (
    BASE,
    OTHER_BASE,
    VALUES,
    D,
    P,
    Refused,
    adapter_zip,
    changed,
    entry,
    nested,
    npy_file,
    safetensors_file,
    weights_file,
    with_metadata,
)

R = Reason


def described(**changes: Any) -> bytes:
    """A file whose description of the tensor is changed."""
    return safetensors_file({"prompt": entry(**changes)})


def repeated_header() -> bytes:
    one = json.dumps(entry())
    return f'{{"prompt":{one},"prompt":{one}}}'.encode()


def header_of(shape: str = f"({P}, {D})", descr: str = "'<f4'", order: str = "False", more: str = "") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}"


def objects_npy() -> bytes:
    """What `numpy.save` makes of objects: a pickle behind an innocent header."""
    return npy_file(header=header_of(descr="'|O'"))[:-96] + pickle.dumps([1] * 24)


SAFETENSORS: tuple[Refused, ...] = (
    Refused("header of 4 TiB", lambda: safetensors_file(VALUES, length=2**42), R.HEADER_TOO_LARGE, "16384"),
    Refused(
        "header of 2**64-1", lambda: safetensors_file(VALUES, length=2**64 - 1), R.HEADER_TOO_LARGE, "16384"
    ),
    Refused(
        "header of 20 MB",
        lambda: safetensors_file(b'{"prompt":' + b" " * 20_000_000 + b"{}}"),
        R.HEADER_TOO_LARGE,
        "16384",
    ),
    Refused(
        "header of 16 KiB and 1", lambda: safetensors_file(b"{" + b" " * 16384), R.HEADER_TOO_LARGE, "16385"
    ),
    Refused("header cut off", lambda: safetensors_file(VALUES)[:30], R.TRUNCATED, "header"),
    Refused(
        "header longer than the file", lambda: safetensors_file(VALUES, length=9000), R.TRUNCATED, "header"
    ),
    Refused(
        "header shorter than it is", lambda: safetensors_file(VALUES, length=40), R.HEADER_INVALID, "JSON"
    ),
    Refused("header of no bytes", lambda: safetensors_file(b"{}", length=0), R.HEADER_INVALID, "JSON"),
    Refused("header with bytes after it", lambda: safetensors_file(b"{} {}"), R.HEADER_INVALID, "JSON"),
    Refused("header with NaN", lambda: safetensors_file(b'{"prompt":NaN}'), R.HEADER_INVALID, "finite"),
    Refused(
        "header with infinity", lambda: safetensors_file(b'{"prompt":1e999}'), R.HEADER_INVALID, "finite"
    ),
    Refused(
        "header with a long number",
        lambda: safetensors_file(b'{"p":' + b"9" * 9000 + b"}"),
        R.HEADER_INVALID,
        "JSON",
    ),
    Refused("header nested", lambda: safetensors_file(nested(4)), R.HEADER_INVALID, "nested"),
    Refused("header nested deeply", lambda: safetensors_file(nested(2700)), R.HEADER_INVALID, "nested"),
    Refused(
        "header of open brackets", lambda: safetensors_file(b"{" + b"[" * 16000), R.HEADER_INVALID, "nested"
    ),
    Refused(
        "header of open quotes", lambda: safetensors_file(b"{" + b'\\"' * 8000), R.HEADER_INVALID, "JSON"
    ),
    Refused("header not UTF-8", lambda: safetensors_file(b'{"\xff\xfe":1}'), R.HEADER_INVALID, "UTF-8"),
    Refused(
        "header with a surrogate", lambda: safetensors_file(b'{"\\ud800":1}'), R.HEADER_INVALID, "surrogates"
    ),
    Refused("header twice", lambda: safetensors_file(repeated_header()), R.DUPLICATE_KEY, "'prompt' twice"),
    Refused(
        "dtype twice",
        lambda: safetensors_file(
            b'{"prompt":{"dtype":"F32","dtype":"F16","shape":[4,6],"data_offsets":[0,96]}}'
        ),
        R.DUPLICATE_KEY,
        "'dtype' twice",
    ),
    Refused("no tensor", lambda: safetensors_file({}), R.TENSOR_MISSING, "found: none"),
    Refused("other name", lambda: safetensors_file(VALUES, name="weight"), R.TENSOR_MISSING, "'weight'"),
    Refused("adapter without configuration", weights_file, R.TENSOR_MISSING, "adapter_config.json"),
    Refused(
        "extra tensor",
        lambda: safetensors_file(
            {"prompt": entry(), "more": entry(data_offsets=[96, 192])}, VALUES.tobytes() * 2
        ),
        R.TENSOR_EXTRA,
        "'more'",
    ),
    Refused(
        "two tensors on the same bytes",
        lambda: safetensors_file({"prompt": entry(), "more": entry()}),
        R.TENSOR_EXTRA,
        "'more'",
    ),
    Refused("name with ..", lambda: safetensors_file(VALUES, name="../prompt"), R.TENSOR_NAME, "plain name"),
    Refused(
        "name with NUL", lambda: safetensors_file(VALUES, name="prompt\0"), R.TENSOR_NAME, r"'prompt\x00'"
    ),
    Refused("name of nothing", lambda: safetensors_file(VALUES, name=""), R.TENSOR_NAME, "plain name"),
    Refused("name too long", lambda: safetensors_file(VALUES, name="p" * 5000), R.TENSOR_NAME, "plain name"),
    Refused("tensor is a number", lambda: safetensors_file({"prompt": 1}), R.HEADER_INVALID, "described"),
    Refused(
        "tensor lacks offsets",
        lambda: safetensors_file({"prompt": {"dtype": "F32", "shape": [4, 6]}}),
        R.HEADER_INVALID,
        "described",
    ),
    Refused("tensor says more", lambda: described(stride=[1]), R.HEADER_INVALID, "described"),
    Refused("shape of halves", lambda: described(shape=[4.0, 6]), R.HEADER_INVALID, "whole numbers"),
    Refused("shape of truths", lambda: described(shape=[True, 6]), R.HEADER_INVALID, "whole numbers"),
    Refused("shape negative", lambda: described(shape=[-4, -6]), R.HEADER_INVALID, "whole numbers"),
    Refused("shape no list", lambda: described(shape="4,6"), R.HEADER_INVALID, "whole numbers"),
    Refused(
        "hole before the values", lambda: described(data_offsets=[8, 104]), R.BAD_OFFSETS, "starting at 0"
    ),
    Refused("offsets backwards", lambda: described(data_offsets=[96, 0]), R.BAD_OFFSETS, "starting at 0"),
    Refused("offsets too short", lambda: described(data_offsets=[0, 92]), R.BAD_OFFSETS, "exactly"),
    Refused("offsets of 2**63", lambda: described(data_offsets=[0, 2**63]), R.BAD_OFFSETS, "exactly"),
    Refused("offsets of three", lambda: described(data_offsets=[0, 96, 96]), R.BAD_OFFSETS, "exactly"),
    Refused(
        "shape that overflows to its size",
        lambda: described(shape=[2**62, 2**6 + 1]),
        R.BAD_OFFSETS,
        "exactly",
    ),
    Refused(
        "dtype float64",
        lambda: safetensors_file({"prompt": entry(dtype="F64", data_offsets=[0, 192])}),
        R.WRONG_DTYPE,
        "'F64'",
    ),
    Refused("dtype int32", lambda: described(dtype="I32"), R.WRONG_DTYPE, "float32"),
    Refused("dtype float8", lambda: described(dtype="F8_E4M3"), R.WRONG_DTYPE, "float32"),
    Refused("dtype unknown", lambda: described(dtype="\x1b[31mF32"), R.WRONG_DTYPE, r"\x1b"),
    Refused("dtype no text", lambda: described(dtype=32), R.HEADER_INVALID, "dtype"),
    Refused("values cut off", lambda: safetensors_file(VALUES)[:-1], R.TRUNCATED, "95 bytes"),
    Refused("no values", lambda: safetensors_file(VALUES, b""), R.TRUNCATED, "0 bytes"),
    Refused("trailing byte", lambda: safetensors_file(VALUES) + b"\n", R.TRAILING_BYTES, "1 bytes"),
    Refused(
        "zip behind it", lambda: safetensors_file(VALUES) + adapter_zip(), R.TRAILING_BYTES, "bytes after"
    ),
)

VALUES_AND_SHAPES: tuple[Refused, ...] = (
    Refused("NaN", lambda: safetensors_file(changed(2, 3, np.nan)), R.NOT_FINITE, "row 2, column 3 is NaN"),
    Refused("infinity", lambda: safetensors_file(changed(0, 5, np.inf)), R.NOT_FINITE, "an infinity"),
    Refused("minus infinity", lambda: npy_file(changed(3, 0, -np.inf)), R.NOT_FINITE, "row 3, column 0"),
    Refused("overflows bfloat16", lambda: safetensors_file(changed(1, 1, 3.4e38)), R.OVERFLOW, "bfloat16"),
    Refused("overflows bfloat16 below 0", lambda: npy_file(changed(1, 1, -3.4e38)), R.OVERFLOW, "bfloat16"),
    Refused("float64 overflows float32", lambda: npy_file(VALUES.astype("f8") * 1e39), R.OVERFLOW, "float32"),
    Refused("float64 NaN", lambda: npy_file(changed(0, 0, np.nan).astype("f8")), R.NOT_FINITE, "NaN"),
    Refused("one dimension", lambda: safetensors_file(VALUES.ravel()), R.WRONG_RANK, "1 dimensions"),
    Refused("three dimensions", lambda: safetensors_file(VALUES[None]), R.WRONG_RANK, "3 dimensions"),
    Refused("a scalar", lambda: npy_file(np.float32(1.0).reshape(())), R.WRONG_RANK, "0 dimensions"),
    Refused("64 dimensions", lambda: safetensors_file(VALUES.reshape(P, D, *[1] * 62)), R.WRONG_RANK, "64"),
    Refused("wrong width", lambda: safetensors_file(VALUES[:, :5]), R.WRONG_WIDTH, "5 wide"),
    Refused("transposed", lambda: npy_file(np.ascontiguousarray(VALUES.T)), R.WRONG_WIDTH, "4 wide"),
    Refused("no rows", lambda: safetensors_file(VALUES[:0]), R.EMPTY_PROMPT, "at least one row"),
    Refused("no columns", lambda: npy_file(VALUES[:, :0]), R.EMPTY_PROMPT, "no values"),
    Refused("too long", lambda: safetensors_file(np.zeros((17, D), np.float32)), R.TOO_LONG, "17 rows"),
    Refused(
        "claims 2**60 rows", lambda: npy_file(header=header_of(f"({2**60}, {D})")), R.TOO_LONG, "far too many"
    ),
)


NPY: tuple[Refused, ...] = (
    Refused("npy cut off in its header", lambda: npy_file()[:40], R.TRUNCATED, "header"),
    Refused("npy cut off in its length", lambda: npy_file()[:9], R.TRUNCATED, "header"),
    Refused("npy magic alone", lambda: b"\x93NUMPY", R.HEADER_INVALID, "version"),
    Refused("npy version 4", lambda: npy_file(version=b"\x04\x00"), R.HEADER_INVALID, "version"),
    Refused(
        "npy header of 4 GB",
        lambda: npy_file(version=b"\x02\x00", length=2**32 - 1),
        R.HEADER_TOO_LARGE,
        "4096",
    ),
    Refused(
        "npy header of 60 KB", lambda: npy_file(header=header_of() + " " * 60_000), R.HEADER_TOO_LARGE, "4096"
    ),
    Refused("npy cut off", lambda: npy_file()[:-4], R.TRUNCATED, "92 bytes"),
    Refused("npy trailing bytes", lambda: npy_file() + npy_file(), R.TRAILING_BYTES, "bytes after"),
    Refused("npy of objects", lambda: objects_npy(), R.WRONG_DTYPE, "'|O'"),
    Refused(
        "npy of records", lambda: npy_file(header=header_of(descr="[('a', '<f4')]")), R.WRONG_DTYPE, "float32"
    ),
    Refused("npy of int32", lambda: npy_file(VALUES.astype("i4")), R.WRONG_DTYPE, "'<i4'"),
    Refused("npy of complex", lambda: npy_file(VALUES.astype("c8")), R.WRONG_DTYPE, "'<c8'"),
    Refused("npy of texts", lambda: npy_file(VALUES.astype("U4")), R.WRONG_DTYPE, "'<U4'"),
    Refused("npy of bf16", lambda: npy_file(header=header_of(descr="'bf16'")), R.WRONG_DTYPE, "'bf16'"),
    Refused(
        "npy that calls",
        lambda: npy_file(header=header_of(shape="__import__('os').abort()")),
        R.HEADER_INVALID,
        "plain array",
    ),
    Refused("npy nested", lambda: npy_file(header="(" * 4000), R.HEADER_INVALID, "plain array"),
    Refused(
        "npy of spaces", lambda: npy_file(header=header_of()[:-1] + " " * 3900), R.HEADER_INVALID, "plain"
    ),
    Refused(
        "npy negative", lambda: npy_file(header=header_of(shape="(-4, 6)")), R.HEADER_INVALID, "plain array"
    ),
    Refused("npy shape no tuple", lambda: npy_file(header=header_of(shape="'4'")), R.HEADER_INVALID, "shape"),
    Refused(
        "npy order no truth", lambda: npy_file(header=header_of(order="'C'")), R.HEADER_INVALID, "fortran"
    ),
    Refused(
        "npy extra key", lambda: npy_file(header=header_of(more="'x': True")), R.HEADER_INVALID, "keys other"
    ),
    Refused(
        "npy key twice", lambda: npy_file(header=header_of(more="'descr': '<f4'")), R.DUPLICATE_KEY, "'descr'"
    ),
)


METADATA: tuple[Refused, ...] = (
    Refused(
        "metadata not texts",
        lambda: safetensors_file({"__metadata__": {"a": 1}, "prompt": entry()}),
        R.METADATA_INVALID,
        "object of texts",
    ),
    Refused(
        "metadata a list",
        lambda: safetensors_file({"__metadata__": [], "prompt": entry()}),
        R.METADATA_INVALID,
        "object of texts",
    ),
    Refused("metadata not JSON", lambda: with_metadata("{"), R.METADATA_INVALID, "JSON"),
    Refused(
        "metadata with NaN", lambda: with_metadata('{"settings":{"a":NaN}}'), R.METADATA_INVALID, "finite"
    ),
    Refused("metadata key twice", lambda: with_metadata('{"kind":1,"kind":2}'), R.DUPLICATE_KEY, "'kind'"),
    Refused("metadata nested", lambda: with_metadata(nested(9).decode()), R.METADATA_INVALID, "nested"),
    Refused(
        "metadata template", lambda: with_metadata({"template": "{a.b}"}), R.METADATA_INVALID, "template"
    ),
    Refused("metadata labels", lambda: with_metadata({"labels": ["a", "a"]}), R.METADATA_INVALID, "the same"),
    Refused("metadata settings", lambda: with_metadata({"settings": [1]}), R.METADATA_INVALID, "settings"),
    Refused("metadata omitted", lambda: with_metadata({"omitted": [["x"]]}), R.METADATA_INVALID, "omitted"),
    Refused(
        "metadata fingerprint",
        lambda: with_metadata({"base_fingerprint": "AB"}),
        R.METADATA_INVALID,
        "SHA-256",
    ),
    Refused("other kind", lambda: with_metadata({"kind": "prefix"}), R.UNSUPPORTED_KIND, "'prefix'"),
    Refused(
        "other base", lambda: with_metadata({"base_fingerprint": OTHER_BASE}), R.BASE_MISMATCH, BASE[:12]
    ),
    Refused("other values", lambda: with_metadata({"digest": "0" * 64}), R.DIGEST_MISMATCH, "digest"),
)
