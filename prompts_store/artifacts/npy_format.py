"""`.npy`, as google-research/prompt-tuning and numpy write it. We read and write it ourselves.

Format (numpy.lib.format, versions 1.0 to 3.0): `\\x93NUMPY`, two version bytes, the header's length (2 bytes
little-endian in version 1, else 4), a Python dictionary literal with `descr`, `fortran_order` and `shape`,
then the values. numpy evaluates the literal. Here one regular expression reads the only forms that a plain
array has. An `.npz`, a zip of such files, is recognised and refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import cast, get_args

from prompts_store.artifacts.format import Format, ParsedFile
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.tensors import StoredDtype, StoredTensor
from prompts_store.artifacts.types import PromptValues
from prompts_store.artifacts.zip_entries import first_name, is_zip
from prompts_store.text import shown

MAGIC = b"\x93NUMPY"
# numpy's own headers have 64 to 192 bytes; numpy refuses to evaluate more than 10,000.
MAX_HEADER_BYTES = 4 * 1024

# Possessive quantifiers: a hostile header costs one pass, rather than one for each way to split its spaces.
_VALUE = r"'[^'\\]*+'|True|False|\([0-9,\s]*+\)|\[[^\]]*+\]"
_PAIR = rf"'[a-z_]++'\s*+:\s*+(?:{_VALUE})\s*+"
_HEADER = re.compile(rf"\{{\s*+{_PAIR}(?:,\s*+{_PAIR})*+,?\s*+\}}\s*+", re.ASCII)
_PAIRS = re.compile(rf"'([a-z_]++)'\s*+:\s*+({_VALUE})", re.ASCII)
_SHAPE = re.compile(r"\(\s*+(?:[0-9]{1,19}\s*+,\s*+)*+(?:[0-9]{1,19}\s*+)?\)", re.ASCII)


def parse_npy(data: bytes) -> StoredTensor:
    """The array in a file that starts with `MAGIC`.

    Raises:
        ArtifactError: `truncated`, `header_too_large`, `header_invalid`, `duplicate_key` or `wrong_dtype`.
    """
    start, end = _header_range(data)
    # Version 3 is UTF-8, versions 1 and 2 are Latin-1; every accepted form is ASCII.
    fields = _fields(data[start:end].decode("latin-1"))
    return StoredTensor(
        dtype=_dtype(fields["descr"]),
        shape=_shape(fields["shape"]),
        data=memoryview(data)[end:],
        fortran_order=fields["fortran_order"] == "True",
    )


def render_npy(values: PromptValues) -> bytes:
    """A version 1.0 file of `[P, D]` f32, byte for byte the same as `numpy.save` writes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(values.shape)}, }}"
    # numpy leaves room for the first dimension to grow to 21 digits, and aligns the values to 64 bytes.
    header += " " * (21 - len(str(values.shape[0])))
    padding = -(len(MAGIC) + 4 + len(header) + 1) % 64
    text = (header + " " * padding + "\n").encode("latin-1")
    values = values.astype("<f4", order="C", copy=False)
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text + values.tobytes()


def _header_range(data: bytes) -> tuple[int, int]:
    version = data[6:8]
    if version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise refusal(Reason.HEADER_INVALID, "The .npy version is not 1.0, 2.0 or 3.0. Save the array again.")
    start = 10 if version[0] == 1 else 12
    if len(data) < start:
        raise refusal(Reason.TRUNCATED, "The .npy file ends inside its header. Upload it again.")
    (length,) = struct.unpack_from("<H" if version[0] == 1 else "<I", data, 8)
    if length > MAX_HEADER_BYTES:
        raise refusal(
            Reason.HEADER_TOO_LARGE,
            f"The .npy header claims {length} bytes; a plain array's has at most {MAX_HEADER_BYTES}.",
        )
    if start + length > len(data):
        raise refusal(Reason.TRUNCATED, "The .npy file ends inside its header. Upload it again.")
    return start, start + length


def _fields(header: str) -> Mapping[str, str]:
    if not _HEADER.fullmatch(header):
        raise _invalid("is not the description of a plain array")
    fields: dict[str, str] = {}
    for key, value in _PAIRS.findall(header):
        if key in fields:
            raise refusal(Reason.DUPLICATE_KEY, f"The .npy header has the key '{key[:40]}' twice.")
        fields[key] = value
    if set(fields) != {"descr", "fortran_order", "shape"}:
        raise _invalid("has keys other than descr, fortran_order and shape")
    if fields["fortran_order"] not in ("True", "False"):
        raise _invalid("says neither True nor False for fortran_order")
    return fields


def _dtype(text: str) -> StoredDtype:
    code = text[1:-1] if text.startswith("'") else ""
    if code not in get_args(StoredDtype) or code == "bf16":
        raise refusal(
            Reason.WRONG_DTYPE,
            f"The array's dtype is {shown(code or text)}; expected float32 (float64 is "
            "rounded, float16 widened). Save array.astype('float32').",
        )
    return cast(StoredDtype, code)


def _shape(text: str) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text):
        raise _invalid("has no shape made of whole numbers")
    return tuple(int(number) for number in re.findall(r"[0-9]+", text))


def _claims(data: bytes) -> bool:
    return data.startswith(MAGIC) or _is_npz(data)


def _is_npz(data: bytes) -> bool:
    return is_zip(data) and first_name(data).endswith(b".npy")


def _parse(data: bytes) -> ParsedFile:
    # Refused here because the reader of zips would only complain about numpy's 64-bit headers.
    if _is_npz(data):
        raise refusal(
            Reason.NPZ,
            "The file is an .npz archive; save the one array with numpy.save as .npy, and upload that.",
        )
    return ParsedFile(parse_npy(data))


def _invalid(problem: str) -> Exception:
    return refusal(Reason.HEADER_INVALID, f"The .npy header {problem}. Save the array again with numpy.save.")


NPY = Format(
    noun=".npy",
    suffix=".npy",
    claims=_claims,
    parse=lambda data, _limits: _parse(data),
    # The format has no place for a manifest.
    render=lambda values, _manifest, _base_model_name: render_npy(values),
)
