"""The formats of prompt files, by name. To add one, write a module and add a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from prompts_store.artifacts.foreign import refuse_foreign
from prompts_store.artifacts.format import Format
from prompts_store.artifacts.npy_format import NPY
from prompts_store.artifacts.peft_format import PEFT
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.safetensors_format import SAFETENSORS

ArtifactFormat = Literal["safetensors", "npy", "peft"]

FORMATS: Mapping[ArtifactFormat, Format] = {"safetensors": SAFETENSORS, "npy": NPY, "peft": PEFT}


def format_of(data: bytes) -> ArtifactFormat:
    """The format that a file claims to have.

    Raises:
        ArtifactError: `empty_file`, `pickle`, `compressed` or `unknown_format`.
    """
    if not data:
        raise refusal(Reason.EMPTY_FILE, "The file is empty.")
    # safetensors, the first, is asked last, because it has no magic number, but still before pickles, because
    # a header of 0x280 bytes begins like a pickle of protocol 2. A format that takes any zip comes after the
    # formats that recognise their own zips.
    first, *others = FORMATS
    for name in (*others, first):
        if FORMATS[name].claims(data):
            return name
    refuse_foreign(data)
    *nouns, last = (format.noun for format in FORMATS.values())
    raise refusal(Reason.UNKNOWN_FORMAT, f"The file is none of {', '.join(nouns)} and {last}.")
