"""What a file is, by its first bytes: names and content types are the uploader's word only."""

from __future__ import annotations

import re
from typing import Literal

from prompts_store.artifacts.npy_format import MAGIC as NPY_MAGIC
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.safetensors_format import looks_like_safetensors
from prompts_store.artifacts.zip_entries import END_MAGIC, LOCAL_MAGIC

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
# Protocols 2 and later begin with a PROTO opcode; older ones with a global, a mark, a list, a dictionary or a
# tuple.
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|[(\]})](?:[lcdtp]|q\x00|p0\n)")


def container_of(data: bytes) -> Literal["safetensors", "npy", "zip"]:
    """The container that a file claims to be.

    Raises:
        ArtifactError: `empty_file`, `pickle`, `compressed` or `unknown_format`.
    """
    if not data:
        raise refusal(Reason.EMPTY_FILE, "The file is empty.")
    if data.startswith(NPY_MAGIC):
        return "npy"
    if data.startswith((LOCAL_MAGIC, END_MAGIC)):
        return "zip"
    # Before pickles: a header of 0x280 bytes begins as a pickle of protocol 2 does.
    if looks_like_safetensors(data):
        return "safetensors"
    refuse_foreign(data)
    raise refusal(
        Reason.UNKNOWN_FORMAT,
        "The file is none of safetensors, .npy and a zip of a PEFT prompt-tuning adapter.",
    )


def refuse_foreign(data: bytes) -> None:
    """Raise ArtifactError (`pickle`, `compressed`) for files that are known and never read."""
    if _PICKLE.match(data):
        raise pickle_refusal("The file")
    for magic, name in _COMPRESSED.items():
        if data.startswith(magic):
            raise refusal(
                Reason.COMPRESSED, f"The file is compressed with {name}; unpack it and upload what is inside."
            )


def refuse_known_zips(data: bytes) -> None:
    """Raise ArtifactError (`pickle`, `npz`) for the zips of torch and numpy, told by their first entry's
    name.

    Looked at before the zip is read, which would only complain of torch's folders and numpy's 64-bit headers.
    """
    length = int.from_bytes(data[26:28], "little")
    name = data[30 : 30 + length]
    if name.endswith(b"data.pkl"):
        raise pickle_refusal("The zip is a torch file; it")
    if name.endswith(b".npy"):
        raise refusal(
            Reason.NPZ,
            "The file is an .npz archive; save the one array with numpy.save as .npy, and upload that.",
        )


def pickle_refusal(what: str) -> Exception:
    """The error for a pickle, which could run any code when loaded."""
    return refusal(
        Reason.PICKLE,
        f"{what} is a pickle, which can run code when read, so it never is. Save the tensor as safetensors "
        "(safetensors.torch.save_file) under the name 'prompt'.",
    )
