"""Files byte by byte, so that a test can say exactly what is wrong with one."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from prompts_store.artifacts import ArtifactLimits, Reason
from tests.places import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "artifacts"

P, D = 4, 6
BASE = "f" * 64
OTHER_BASE = "cd" * 32
LIMITS = ArtifactLimits(width=D, max_length=16, compute_dtype="bfloat16", base_fingerprint=BASE)
VALUES = np.random.default_rng(7).normal(size=(P, D)).astype(np.float32)
VALUES.setflags(write=False)


@dataclass(frozen=True)
class Refused:
    """A file, the reason for refusing it, and words of the message."""

    name: str
    build: Callable[[], bytes]
    reason: Reason
    says: str


def safetensors_file(
    header: Any, body: bytes | None = None, *, length: int | None = None, name: str = "prompt"
) -> bytes:
    """A safetensors file. `header` is an object, bytes as they are, or an array to describe; `length` may
    lie."""
    if isinstance(header, np.ndarray):
        body = header.tobytes() if body is None else body
        header = {name: entry(header)}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = VALUES.tobytes() if body is None else body
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def changed(row: int, column: int, value: float) -> np.ndarray:
    values = VALUES.copy()
    values[row, column] = value
    return values


def entry(values: np.ndarray = VALUES, **changes: Any) -> dict[str, Any]:
    """A tensor's description, with some of it changed."""
    return {"dtype": "F32", "shape": list(values.shape), "data_offsets": [0, values.nbytes], **changes}


def with_metadata(metadata: Any, values: np.ndarray = VALUES) -> bytes:
    """A good file but for what it says about itself under `chorus`."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    return safetensors_file({"__metadata__": {"chorus": text}, "prompt": entry(values)}, values.tobytes())


def npy_file(
    values: np.ndarray = VALUES,
    *,
    header: str | None = None,
    version: bytes = b"\x01\x00",
    length: int | None = None,
) -> bytes:
    """An `.npy` file of any array without objects; `header` replaces the dictionary."""
    order = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
    if header is None:
        shape = f"({', '.join(map(str, values.shape))}{',' if values.ndim == 1 else ''})"
        header = f"{{'descr': '{values.dtype.str}', 'fortran_order': {order == 'F'}, 'shape': {shape}, }}"
    text = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text + values.tobytes(order)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


CONFIG: dict[str, Any] = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "SEQ_2_SEQ_LM",
    "num_virtual_tokens": P,
    "num_transformer_submodules": 1,
    "token_dim": D,
    "base_model_name_or_path": "google/t5-v1_1-small",
}


def config_file(**changes: Any) -> bytes:
    """An `adapter_config.json`; a field set to `...` is left out."""
    return json.dumps({k: v for k, v in {**CONFIG, **changes}.items() if v is not ...}).encode()


def weights_file(values: np.ndarray = VALUES) -> bytes:
    """An `adapter_model.safetensors`."""
    return safetensors_file(values, name="prompt_embeddings")


@dataclass
class Member:
    """One entry of a zip; every field after `content` can be made to lie."""

    name: bytes
    content: bytes
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    size: int | None = None
    stored: bytes | None = None
    crc: int | None = None
    local_name: bytes | None = None
    local_crc: int | None = None
    start: int | None = None
    directory_only: bool = False


def members(config: bytes | None = None, weights: bytes | None = None, **changes: Any) -> list[Member]:
    """The two files of an adapter; the changes are the second's."""
    return [
        Member(b"adapter_config.json", config_file() if config is None else config),
        Member(b"adapter_model.safetensors", weights_file() if weights is None else weights, **changes),
    ]


def zip_file(
    entries: list[Member],
    *,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    count: int | None = None,
) -> bytes:
    """A zip, with bytes where none belong if asked."""
    body, directory = bytearray(before), bytearray()
    for member in entries:
        local, central = _records(member, len(body) if member.start is None else member.start)
        body += b"" if member.directory_only else local + between
        directory += central
    total = len(entries) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, total, total, len(directory), len(body), len(comment))
    return bytes(body + directory) + end + comment + after


def _records(member: Member, start: int) -> tuple[bytes, bytes]:
    """An entry's local record with its data, and its place in the directory."""
    stored = _packed(member) if member.stored is None else member.stored
    size = len(member.content) if member.size is None else member.size
    crc = zlib.crc32(member.content) if member.crc is None else member.crc
    local_crc = crc if member.local_crc is None else member.local_crc
    name = member.name if member.local_name is None else member.local_name
    common = struct.pack("<5H", 20, member.flags, member.method, 0, 0x21)
    sizes = struct.pack("<2I", len(stored), size)
    local = b"PK\x03\x04" + common + struct.pack("<I", local_crc) + sizes
    central = b"PK\x01\x02\x14\x03" + common + struct.pack("<I", crc) + sizes
    rest = struct.pack("<5H2I", len(member.name), 0, 0, 0, 0, member.mode << 16, start)
    return local + struct.pack("<2H", len(name), 0) + name + stored, central + rest + member.name


def _packed(member: Member) -> bytes:
    if member.method != 8:
        return member.content
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(member.content) + stream.flush()


def adapter_zip(config: bytes | None = None, weights: bytes | None = None, **changes: Any) -> bytes:
    """A zip of an adapter."""
    return zip_file(members(config, weights, **changes))


def of_tasks(
    *,
    columns: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    config: dict[str, object] | None = None,
    cut: int = 0,
    gap: int = 0,
    without: str = "",
) -> bytes:
    """A multitask adapter of one task with two ranks, with something of it wrong."""
    tensors = {
        "prefix_task_cols": np.ones((1, P, 2), np.float32) if columns is None else columns,
        "prefix_task_rows": np.ones((1, 2, D), np.float32) if rows is None else rows,
        "prompt_embeddings": VALUES,
    }
    tensors.pop(without, None)
    header, body = {}, b""
    for name, values in tensors.items():
        start = len(body) + (gap if name == "prefix_task_rows" else 0)
        header[name] = entry(values, data_offsets=[start, start + values.nbytes])
        body += values.tobytes()
    said = {"peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 1, "num_ranks": 2, **(config or {})}
    return adapter_zip(config_file(**said), safetensors_file(header, body[: len(body) - cut]))
