"""The accept corpus: files that must be read, and to which bits."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import safetensors.numpy

from prompts_store.artifacts import write_artifact
from tests.faults.artifact_builders import (
    BASE,
    LIMITS,
    VALUES,
    D,
    Member,
    P,
    adapter_zip,
    config_file,
    entry,
    members,
    npy_file,
    of_tasks,
    safetensors_file,
    weights_file,
    with_metadata,
    zip_file,
)


@dataclass(frozen=True)
class Accepted:
    """A file, the values that it holds, and how many notes reading it leaves."""

    name: str
    build: Callable[[], bytes]
    values: np.ndarray
    format: str
    notes: int = 0


def numpy_file(values: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    """As numpy itself writes it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=version, allow_pickle=False)
    return buffer.getvalue()


def zip_by_python(*, streamed: bool = False, level: int = 6) -> bytes:
    """As Python's zipfile writes it; to a stream it cannot go back in, sizes come after the data."""

    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    buffer = Stream() if streamed else io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr("README.md", "# A prompt\n" * 20)
        archive.writestr("adapter_config.json", config_file())
        archive.writestr("adapter_model.safetensors", weights_file())
    return buffer.getvalue()


def _row_norm(norm: float) -> np.ndarray:
    row = np.random.default_rng(int(norm)).normal(size=(1, D))
    return (row * norm / np.linalg.norm(row)).astype(np.float32)


F16 = VALUES.astype(np.float16)
BF16 = VALUES.astype(ml_dtypes.bfloat16)
F64 = np.random.default_rng(8).normal(size=(P, D))
LARGE = np.concatenate([_row_norm(870), _row_norm(1385), np.full((1, D), -750, np.float32)])
EDGES = np.array([[0.0, -0.0, 1e-45, -1e-45, 1.17549435e-38, 3.3e38]], np.float32)
TWO = np.concatenate([VALUES, VALUES * np.nan])
LONGEST = np.random.default_rng(9).normal(size=(LIMITS.max_length, D)).astype(np.float32)
MANIFEST_METADATA = {
    "kind": "soft_prompt",
    "base_fingerprint": BASE,
    "template": "q: {q}",
    "labels": ["a", "b"],
    "settings": {"max_new_tokens": 3},
}

ACCEPTED: tuple[Accepted, ...] = (
    Accepted("safetensors plain", lambda: safetensors_file(VALUES), VALUES, "safetensors"),
    Accepted("safetensors one row", lambda: safetensors_file(VALUES[:1]), VALUES[:1], "safetensors"),
    Accepted("safetensors longest", lambda: safetensors_file(LONGEST), LONGEST, "safetensors"),
    Accepted("safetensors large values", lambda: safetensors_file(LARGE), LARGE, "safetensors"),
    Accepted("safetensors zeros and denormals", lambda: safetensors_file(EDGES), EDGES, "safetensors"),
    Accepted(
        "safetensors by the library",
        lambda: safetensors.numpy.save({"prompt": VALUES}, metadata={"format": "pt"}),
        VALUES,
        "safetensors",
    ),
    Accepted("safetensors by us", lambda: write_artifact(VALUES, "safetensors"), VALUES, "safetensors"),
    Accepted("safetensors with metadata", lambda: with_metadata(MANIFEST_METADATA), VALUES, "safetensors"),
    Accepted(
        "safetensors header of 640 bytes, as a pickle begins",
        lambda: safetensors_file(_padded_header(640)),
        VALUES,
        "safetensors",
    ),
    Accepted(
        "safetensors header of 16 KiB", lambda: safetensors_file(_padded_header(16384)), VALUES, "safetensors"
    ),
    Accepted("safetensors unaligned", lambda: safetensors_file(_padded_header(101)), VALUES, "safetensors"),
    Accepted(
        "safetensors float16",
        lambda: safetensors_file({"prompt": entry(F16, dtype="F16")}, F16.tobytes()),
        F16.astype(np.float32),
        "safetensors",
        notes=1,
    ),
    Accepted(
        "safetensors bfloat16",
        lambda: safetensors_file({"prompt": entry(BF16, dtype="BF16")}, BF16.tobytes()),
        BF16.astype(np.float32),
        "safetensors",
        notes=1,
    ),
    Accepted("npy 1.0", lambda: numpy_file(VALUES, (1, 0)), VALUES, "npy"),
    Accepted("npy 2.0", lambda: numpy_file(VALUES, (2, 0)), VALUES, "npy"),
    Accepted("npy 3.0", lambda: numpy_file(VALUES, (3, 0)), VALUES, "npy"),
    Accepted("npy other key order", lambda: npy_file(header=_REORDERED), VALUES, "npy"),
    Accepted("npy Fortran order", lambda: numpy_file(np.asfortranarray(VALUES)), VALUES, "npy"),
    Accepted("npy big-endian", lambda: numpy_file(VALUES.astype(">f4")), VALUES, "npy"),
    Accepted("npy float64", lambda: numpy_file(F64), F64.astype(np.float32), "npy", notes=1),
    Accepted(
        "npy float64, Fortran order, big-endian",
        lambda: numpy_file(np.asfortranarray(F64.astype(">f8"))),
        F64.astype(np.float32),
        "npy",
        notes=1,
    ),
    Accepted(
        "npy float64 below float32's smallest",
        lambda: numpy_file(F64 * 1e-60),
        (F64 * 1e-60).astype(np.float32),
        "npy",
        notes=1,
    ),
    Accepted("npy float16", lambda: numpy_file(F16), F16.astype(np.float32), "npy", notes=1),
    Accepted("npy by us", lambda: write_artifact(VALUES, "npy"), VALUES, "npy"),
    Accepted("peft zip", adapter_zip, VALUES, "peft"),
    Accepted("peft zip by us", lambda: write_artifact(VALUES, "peft"), VALUES, "peft"),
    Accepted("peft zip by Python", zip_by_python, VALUES, "peft"),
    Accepted("peft zip streamed", lambda: zip_by_python(streamed=True), VALUES, "peft"),
    Accepted("peft P-tuning", lambda: adapter_zip(config_file(peft_type="P_TUNING")), VALUES, "peft"),
    Accepted("peft of one task", of_tasks, VALUES * 2, "peft"),
    Accepted("peft zip stored", lambda: adapter_zip(method=0), VALUES, "peft"),
    Accepted(
        "peft zip with other files",
        lambda: zip_file(
            [*members(), Member(b"training_args.bin", b"\x80\x02x."), Member(b"README.md", b"")]
        ),
        VALUES,
        "peft",
    ),
    Accepted(
        "peft two submodules",
        lambda: adapter_zip(config_file(num_transformer_submodules=2), weights_file(TWO)),
        VALUES,
        "peft",
        notes=1,
    ),
    Accepted(
        "peft submodules left to PEFT, two",
        lambda: adapter_zip(config_file(num_transformer_submodules=None), weights_file(TWO)),
        VALUES,
        "peft",
        notes=1,
    ),
    Accepted(
        "peft submodules left to PEFT, one",
        lambda: adapter_zip(config_file(num_transformer_submodules=..., task_type=None, token_dim=None)),
        VALUES,
        "peft",
    ),
)

_REORDERED = f"{{'shape': ({P},{D}),'fortran_order':False, 'descr' : '<f4'}}"


def _padded_header(size: int) -> bytes:
    text = safetensors_file(VALUES, b"")[8:]
    return text + b" " * (size - len(text))
