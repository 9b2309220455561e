"""safetensors. We read and write it ourselves.

Format (github.com/huggingface/safetensors, "Format"): 8 bytes N, unsigned little-endian; N bytes of JSON, an
object of `name: {"dtype", "shape", "data_offsets"}` and optionally `__metadata__`, text to text, padded with
spaces; then the values. The reference library accepts headers of up to 100 MB, repeated keys, NaN and any
tensor name. Here a header has at most 16 KiB and no key twice.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prompts_store.artifacts.format import Format, ParsedFile
from prompts_store.artifacts.metadata import read_metadata, render_metadata
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.strict_json import parse_object
from prompts_store.artifacts.tensors import StoredDtype, StoredTensor
from prompts_store.artifacts.types import ArtifactLimits, PromptValues
from prompts_store.records import PromptManifest
from prompts_store.text import shown

MAX_HEADER_BYTES = 16 * 1024
PROMPT_TENSOR = "prompt"

_METADATA = "__metadata__"
_HEADER_DEPTH = 3
_ALIGNMENT = 8
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_DTYPES: Mapping[str, StoredDtype] = {"F32": "<f4", "BF16": "bf16", "F16": "<f2"}


def looks_like_safetensors(data: bytes) -> bool:
    """Whether a JSON object starts where a safetensors header does. The length before it may still be
    wrong."""
    return data[8:9] == b"{"


def parse_safetensors(
    data: bytes, *, tensors: tuple[str, ...]
) -> tuple[dict[str, StoredTensor], Mapping[str, str]]:
    """All tensors of a file by name, and the file's metadata.

    Args:
        data: the whole file.
        tensors: the names that the tensors must have; no other may be there.

    Raises:
        ArtifactError: `header_too_large`, `truncated`, `header_invalid`, `duplicate_key`, `metadata_invalid`,
            `tensor_name`, `tensor_missing`, `tensor_extra`, `wrong_dtype` or `bad_offsets`.
    """
    end = _header_end(data)
    header = parse_object(
        data[8:end], what="The safetensors header", reason=Reason.HEADER_INVALID, max_depth=_HEADER_DEPTH
    )
    metadata = _text_map(header.pop(_METADATA, {}))
    _check_names(header, tensors)
    return _stored({name: _entry(header, name) for name in tensors}, memoryview(data)[end:]), metadata


def render_safetensors(values: PromptValues, *, tensor: str, metadata: Mapping[str, str]) -> bytes:
    """A file with one f32 tensor. The same arguments give the same bytes.

    Args:
        values: `[P, D]`.
        tensor: its name.
        metadata: text to text; may be empty.

    Raises:
        ValueError: the header would be longer than `parse_safetensors` accepts.
    """
    header = render_header(values.shape, tensor=tensor, metadata=metadata)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"the header has {len(header)} bytes; the limit is {MAX_HEADER_BYTES}")
    return struct.pack("<Q", len(header)) + header + values.astype("<f4", order="C", copy=False).tobytes()


def render_header(shape: tuple[int, ...], *, tensor: str, metadata: Mapping[str, str]) -> bytes:
    """The header alone, padded so that the values behind it are aligned."""
    entries: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    entries[tensor] = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * shape[0] * shape[1]]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return header + b" " * (-len(header) % _ALIGNMENT)


def render_prompt(values: PromptValues, manifest: PromptManifest | None, *, tensor: str) -> bytes:
    """A file with as much of the manifest as fits its header."""
    metadata = render_metadata(
        manifest,
        lambda texts: len(render_header(values.shape, tensor=tensor, metadata=texts)) <= MAX_HEADER_BYTES,
    )
    return render_safetensors(values, tensor=tensor, metadata=metadata)


def _header_end(data: bytes) -> int:
    if len(data) < 8:
        raise refusal(Reason.TRUNCATED, "The file ends inside the length of its safetensors header.")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER_BYTES:
        raise refusal(
            Reason.HEADER_TOO_LARGE,
            f"The safetensors header claims {length} bytes; a prompt's has at most {MAX_HEADER_BYTES}.",
        )
    if 8 + length > len(data):
        raise refusal(Reason.TRUNCATED, "The file ends inside its safetensors header. Upload it again.")
    return 8 + int(length)


def _text_map(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise refusal(Reason.METADATA_INVALID, "The safetensors metadata is not an object of texts.")
    return value


def _check_names(header: Mapping[str, Any], tensors: tuple[str, ...]) -> None:
    wanted = " and ".join(f"'{name}'" for name in tensors)
    for name in header:
        if not _PLAIN_NAME.fullmatch(name) or ".." in name:
            raise refusal(
                Reason.TENSOR_NAME,
                f"The tensor name {shown(name)} is not a plain name; expected {wanted} alone.",
            )
    for name in tensors:
        if name not in header:
            raise refusal(Reason.TENSOR_MISSING, _missing(header, name))
    for name in header:
        if name not in tensors:
            raise refusal(Reason.TENSOR_EXTRA, f"The file also has the tensor '{name}'; write only {wanted}.")


def _entry(header: Mapping[str, Any], tensor: str) -> Mapping[str, Any]:
    entry = header[tensor]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refusal(
            Reason.HEADER_INVALID,
            f"The tensor '{tensor}' must be described by dtype, shape and data_offsets only.",
        )
    return entry


def _stored(entries: Mapping[str, Mapping[str, Any]], values: memoryview) -> dict[str, StoredTensor]:
    """The tensors as they are described. The last in the file gets all that is left, so that bytes that are
    missing or too many are noticed where its size is checked."""
    offsets = {name: _integers(entry["data_offsets"], "data_offsets") for name, entry in entries.items()}
    order = sorted(entries, key=lambda name: offsets[name])
    found, position = {}, 0
    for name in order:
        shape = _integers(entries[name]["shape"], "shape")
        stored = StoredTensor(dtype=_dtype(entries[name]["dtype"]), shape=shape, data=values[position:])
        # The library requires the same: no gap before a tensor, and a range of exactly the shape's size.
        end = position + stored.declared_bytes
        if offsets[name] != (position, end):
            raise refusal(
                Reason.BAD_OFFSETS,
                "The data_offsets do not cover exactly the bytes of each tensor's shape, starting at 0.",
            )
        found[name] = stored if name == order[-1] else replace(stored, data=values[position:end])
        position = end
    return found


def _missing(header: Mapping[str, Any], tensor: str) -> str:
    if tensor == PROMPT_TENSOR and "prompt_embeddings" in header:
        return (
            "The file is a PEFT adapter without its configuration; upload a zip of adapter_config.json and "
            "adapter_model.safetensors."
        )
    found = ", ".join(f"'{name}'" for name in list(header)[:3]) or "none"
    return f"The file has no tensor named '{tensor}' (found: {found}); name it '{tensor}'."


def _integers(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise refusal(Reason.HEADER_INVALID, f"The tensor's {what} is not a list of whole numbers.")
    return tuple(value)


def _dtype(value: Any) -> StoredDtype:
    if not isinstance(value, str):
        raise refusal(Reason.HEADER_INVALID, "The tensor's dtype is not a text.")
    if value not in _DTYPES:
        raise refusal(
            Reason.WRONG_DTYPE,
            f"The prompt's dtype is {shown(value)}; expected F32 (BF16 and F16 are widened). "
            "Cast it to float32.",
        )
    return _DTYPES[value]


def _parse(data: bytes, limits: ArtifactLimits) -> ParsedFile:
    tensors, texts = parse_safetensors(data, tensors=(PROMPT_TENSOR,))
    return ParsedFile(tensors[PROMPT_TENSOR], read_metadata(texts, limits))


SAFETENSORS = Format(
    noun="safetensors",
    suffix=".safetensors",
    claims=looks_like_safetensors,
    parse=_parse,
    render=lambda values, manifest, _base_model_name: render_prompt(values, manifest, tensor=PROMPT_TENSOR),
)
