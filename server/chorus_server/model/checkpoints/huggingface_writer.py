"""Writes a Hugging Face T5 folder: `config.json`, safetensors in files of at most 5 GB, the vocabulary."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chorus_server.model.checkpoints.documents import write_json
from chorus_server.model.checkpoints.huggingface import SAFETENSORS_FILE, SAFETENSORS_INDEX
from chorus_server.model.checkpoints.huggingface_config import config_to_huggingface
from chorus_server.model.checkpoints.huggingface_names import huggingface_place
from chorus_server.model.checkpoints.tensors import BFLOAT16, BLOCK_BYTES, HostArray, row_ranges
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary, write_vocabulary
from chorus_server.model.config import T5Config
from chorus_server.model.fingerprint import Fingerprinter
from chorus_server.model.parameters import parameter_shapes

FILE_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where one tensor goes: its file's number, its offset in the file's data, its shape there."""

    file: int
    offset: int
    shape: tuple[int, ...]


def write_huggingface(
    folder: Path,
    config: T5Config,
    tensors: Iterable[tuple[str, HostArray]],
    *,
    dtype: np.dtype[Any],
    vocabulary: FoundVocabulary | None,
    file_bytes: int = FILE_BYTES,
) -> str:
    """Write into an empty folder and return the fingerprint.

    Every offset is known from the config, so tensors may come in any order and none is kept.
    """
    slots = _plan(config, dtype, file_bytes)
    names = _file_names(1 + max(slot.file for slot in slots.values()))
    starts = [_write_header(folder / name, slots, number, dtype) for number, name in enumerate(names)]
    collector = Fingerprinter(config)
    for canonical, array in collector.watch(tensors):
        place = huggingface_place(canonical)
        slot = slots[place.name]
        offset = starts[slot.file] + slot.offset
        _write_tensor(folder / names[slot.file], offset, array.T if place.transpose else array)
        del array
    if len(names) > 1:
        _write_index(folder, slots, names, dtype)
    write_json(folder / "config.json", config_to_huggingface(config, dtype.name))
    if write_vocabulary(folder, vocabulary) is not None:
        tokenizer = {"tokenizer_class": "T5Tokenizer", "extra_ids": config.extra_ids, "legacy": True}
        write_json(folder / "tokenizer_config.json", tokenizer)
    return collector.fingerprint()


def _plan(config: T5Config, dtype: np.dtype[Any], file_bytes: int) -> dict[str, _Slot]:
    slots: dict[str, _Slot] = {}
    number = used = 0
    for canonical, shape in parameter_shapes(config).items():
        place = huggingface_place(canonical)
        size = math.prod(shape) * dtype.itemsize
        if used and used + size > file_bytes:
            number, used = number + 1, 0
        slots[place.name] = _Slot(number, used, shape[::-1] if place.transpose else shape)
        used += size
    return slots


def _file_names(count: int) -> list[str]:
    if count == 1:
        return [SAFETENSORS_FILE]
    return [f"model-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]


def _write_header(path: Path, slots: dict[str, _Slot], number: int, dtype: np.dtype[Any]) -> int:
    """Write the header, extend the file to its final length, and return where its data starts."""
    kind = "BF16" if dtype == BFLOAT16 else "F32"
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, slot in slots.items():
        if slot.file == number:
            end = slot.offset + math.prod(slot.shape) * dtype.itemsize
            header[name] = {"dtype": kind, "shape": list(slot.shape), "data_offsets": [slot.offset, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return 8 + len(text)


def _write_tensor(path: Path, offset: int, array: HostArray) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        for rows in row_ranges(array.shape, array.itemsize, BLOCK_BYTES):
            data = np.ascontiguousarray(array[rows]).view(np.uint8).reshape(-1).data
            while data:
                data = data[os.write(file.fileno(), data) :]


def _write_index(folder: Path, slots: dict[str, _Slot], names: list[str], dtype: np.dtype[Any]) -> None:
    total = sum(math.prod(slot.shape) for slot in slots.values()) * dtype.itemsize
    weight_map = {name: names[slot.file] for name, slot in slots.items()}
    write_json(folder / SAFETENSORS_INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
