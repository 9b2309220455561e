"""A short name of everything that decides how a process rounds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from chorus_server.engine.plans import Ladder

_DIGITS = 16


def system_fingerprint(
    base_fingerprint: str, compute_dtype: str, matrix_dtype: str, jaxlib: str, ladder: Ladder
) -> str:
    """`fp_` and 16 hexadecimal digits. Processes with different ones may round differently: on one processor,
    another means another base, type, ladder or version of jaxlib."""
    facts = {
        "base": base_fingerprint,
        "compute_dtype": compute_dtype,
        "matrix_dtype": matrix_dtype,
        "jaxlib": jaxlib,
        "ladder": asdict(ladder),
    }
    return f"fp_{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_DIGITS]}"
