"""The refuse corpus: files that must not be read, why, and a part of what the caller is told."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle

from prompts_store.artifacts import Reason
from tests.faults.artifact_builders import (
    FIXTURES,
    LIMITS,
    VALUES,
    Refused,
    npy_file,
    safetensors_file,
)
from tests.faults.artifact_refused_tensors import METADATA, NPY, SAFETENSORS, VALUES_AND_SHAPES
from tests.faults.artifact_refused_zips import PEFT, ZIP

R = Reason


def torch_legacy() -> bytes:
    """How `torch.save` began before it wrote zips."""
    return b"".join(
        pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little": True})
    )


WHOLE_FILES: tuple[Refused, ...] = (
    Refused("empty", lambda: b"", R.EMPTY_FILE, "empty"),
    Refused("one byte", lambda: b"\x00", R.UNKNOWN_FORMAT, "none of"),
    Refused("text", lambda: b"0.1 0.2 0.3\n", R.UNKNOWN_FORMAT, "none of"),
    Refused("JSON", lambda: json.dumps(VALUES.tolist()).encode(), R.UNKNOWN_FORMAT, "none of"),
    Refused("raw floats", VALUES.tobytes, R.UNKNOWN_FORMAT, "none of"),
    Refused("HDF5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(80), R.UNKNOWN_FORMAT, "none of"),
    Refused("too large", lambda: bytes(LIMITS.max_bytes + 1), R.FILE_TOO_LARGE, "the limit is"),
    Refused("gzip", lambda: gzip.compress(safetensors_file(VALUES)), R.COMPRESSED, "gzip"),
    Refused("bzip2", lambda: bz2.compress(npy_file()), R.COMPRESSED, "bzip2"),
    Refused("xz", lambda: lzma.compress(npy_file()), R.COMPRESSED, "xz"),
    Refused("zstd", lambda: b"\x28\xb5\x2f\xfd" + bytes(60), R.COMPRESSED, "zstd"),
    Refused("7z", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(60), R.COMPRESSED, "7-Zip"),
    *(
        Refused(
            f"pickle of protocol {n}",
            lambda n=n: pickle.dumps({"prompt": VALUES}, n),
            R.PICKLE,
            "can run code",
        )
        for n in range(6)
    ),
    Refused("pickle by hand", lambda: b"cos\nsystem\n(S'true'\ntR.", R.PICKLE, "can run code"),
    Refused("torch file, legacy", torch_legacy, R.PICKLE, "can run code"),
    Refused("torch file", (FIXTURES / "peft_bin" / "adapter_model.bin").read_bytes, R.PICKLE, "torch file"),
)

REFUSED: tuple[Refused, ...] = (*WHOLE_FILES, *SAFETENSORS, *VALUES_AND_SHAPES, *NPY, *METADATA, *ZIP, *PEFT)
