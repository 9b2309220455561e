"""Kinds of file that are recognised by their first bytes and never read."""

from __future__ import annotations

import re

from prompts_store.artifacts.reasons import Reason, refusal

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


def refuse_foreign(data: bytes) -> None:
    """Raise ArtifactError (`pickle`, `compressed`) for a kind of file that is recognised and never read."""
    if _PICKLE.match(data):
        raise pickle_refusal("The file")
    for magic, name in _COMPRESSED.items():
        if data.startswith(magic):
            raise refusal(
                Reason.COMPRESSED,
                f"The file is compressed with {name}; unpack it and upload the file inside.",
            )


def pickle_refusal(what: str) -> Exception:
    """The error for a pickle, which could run any code when loaded."""
    return refusal(
        Reason.PICKLE,
        f"{what} is a pickle, which can run code when it is read. Save the tensor as safetensors "
        "(safetensors.torch.save_file) under the name 'prompt'.",
    )
