"""`pytorch_model*.bin` folders, read without torch and without unpickling. Only `chorus models convert` does
this."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from chorus_server.model.checkpoints.huggingface import HuggingFaceReader, merge_shard, sharded_files
from chorus_server.model.checkpoints.safetensors_file import FileTensor, read_exactly
from chorus_server.model.checkpoints.tensors import BFLOAT16, RawTensor
from chorus_server.model.checkpoints.torch.restricted_pickle import (
    MAX_PICKLE_BYTES,
    TorchTensor,
    read_state_dict,
)
from chorus_server.model.checkpoints.torch.zip_file import Entry, read_directory, refused_torch_file

TORCH_FILE = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "BFloat16Storage": BFLOAT16,
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("bool"),
}


class TorchReader(HuggingFaceReader):
    """A Hugging Face folder whose weights are torch files. Anything but a plain state dict is refused with
    the code `refused_torch_file`."""

    format: ClassVar[str] = "torch"

    def _read_folder(self, folder: Path) -> tuple[dict[str, RawTensor], list[Path]]:
        return _read_folder(folder)


def _read_folder(folder: Path) -> tuple[dict[str, RawTensor], list[Path]]:
    if not (folder / TORCH_INDEX).is_file():
        path = folder / TORCH_FILE
        return dict(read_torch_file(path)), [path]
    raw: dict[str, RawTensor] = {}
    files = sharded_files(folder / TORCH_INDEX)
    for path, names in files.items():
        merge_shard(raw, path, names, dict(read_torch_file(path)))
    return raw, list(files)


def read_torch_file(path: Path) -> dict[str, FileTensor]:
    """The tensors of one torch file, by name. Their data is not read yet.

    Raises:
        InvalidModelError: the file is not a zip of a plain state dict; code `refused_torch_file`.
    """
    entries = read_directory(path)
    pickled = entries["data.pkl"]
    if pickled.size > MAX_PICKLE_BYTES:
        raise refused_torch_file(path, "has a data.pkl that is too large for a state dict")
    with path.open("rb", buffering=0) as file:
        _require_little_endian(path, file.fileno(), entries)
        data = bytes(read_exactly(file.fileno(), pickled.offset, pickled.size, path))
    tensors = read_state_dict(data)
    _refuse_overlaps(path, tensors)
    return {name: _placed(path, entries, name, tensor) for name, tensor in tensors.items()}


def _require_little_endian(path: Path, descriptor: int, entries: dict[str, Entry]) -> None:
    entry = entries.get("byteorder")
    if (
        entry is not None
        and bytes(read_exactly(descriptor, entry.offset, min(entry.size, 16), path)) != b"little"
    ):
        raise refused_torch_file(path, "was written on a big-endian machine")


def _refuse_overlaps(path: Path, tensors: Mapping[str, TorchTensor]) -> None:
    """Tied tensors share all of their storage. If two share only a part, it is not the state dict of a T5."""
    spans = sorted(
        {
            (tensor.storage.key, tensor.offset, tensor.offset + math.prod(tensor.shape))
            for tensor in tensors.values()
        }
    )
    for (key, _, end), (next_key, start, _) in itertools.pairwise(spans):
        if key == next_key and start < end:
            raise refused_torch_file(path, f"has tensors that overlap in storage {key}")


def _placed(path: Path, entries: dict[str, Entry], name: str, tensor: TorchTensor) -> FileTensor:
    entry = entries.get(f"data/{tensor.storage.key}")
    if entry is None:
        raise refused_torch_file(path, f"lacks the storage of tensor {name}")
    dtype = _DTYPES[tensor.storage.kind]
    if entry.size != tensor.storage.elements * dtype.itemsize:
        raise refused_torch_file(
            path, f"has a storage of {entry.size} bytes for tensor {name}, not what it claims"
        )
    if not _contiguous(tensor):
        raise refused_torch_file(
            path, f"has tensor {name} with strides {list(tensor.strides)}; only contiguous ones are read"
        )
    count = math.prod(tensor.shape)
    if tensor.offset + count > tensor.storage.elements:
        raise refused_torch_file(path, f"has tensor {name} reaching past its storage")
    return FileTensor(path, entry.offset + tensor.offset * dtype.itemsize, tensor.shape, dtype)


def _contiguous(tensor: TorchTensor) -> bool:
    expected = 1
    for extent, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if extent > 1 and stride != expected:
            return False
        expected *= max(extent, 1)
    return True
