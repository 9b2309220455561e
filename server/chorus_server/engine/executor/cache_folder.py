"""The folder in which a kind of machine keeps its programs, below `compile_cache_dir`.

Machine code of one processor may not run on another, and JAX's cache does not tell them apart. So machines
that share a folder have one below it each, whose name says what it is for.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax

from chorus_server.model.matrix_types import BF16_INSTRUCTIONS, FLOAT_DTYPES, processor_flags

_MATRICES: dict[str, str] = {dtype: name for name, dtype in FLOAT_DTYPES.items()}


def cores() -> int:
    """Cores that this process may use: XLA divides a program's work among those that it saw."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def programs_folder(parent: Path, matrix_dtype: str, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of this machine's programs; it may not exist yet.

    Args:
        matrix_dtype: of the model.
        tell: called with a line if there are only programs of other machines.
    """
    name = cache_name(matrix_dtype)
    folder = parent / name
    others = sorted({path.parent.name for path in parent.glob("*/*.program")} - {name})
    if others and not folder.is_dir():
        tell(f"compiling anew: {parent} has programs of {', '.join(others)}, and this is {name}")
    return folder


def distrusted(found: os.stat_result) -> str | None:
    """Why a folder's or a file's programs must not be run: everybody may write to it, or its owner is neither
    this user nor root. None if they may. The members of its group are trusted."""
    if found.st_mode & stat.S_IWOTH:
        return "everybody may write to it"
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {found.st_uid}, and this is {os.geteuid()}"
    return None


def cache_name(matrix_dtype: str) -> str:
    """Processor, accelerator, jaxlib and type of the matrices, as in
    `x86_64-avx512_bf16-1f0c9a3e-8cores-cpu-jaxlib0.10.2-bf16`; the digest is of the processor's flags."""
    flags, device = processor_flags(), jax.devices()[0]
    digest = hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:8]
    special = [flag for flag in (*BF16_INSTRUCTIONS, "avx512f", "avx2") if flag in flags][:1]
    kind = "cpu" if device.platform == "cpu" else device.device_kind
    parts = [platform.machine(), *special, digest, f"{cores()}cores", kind, f"jaxlib{version('jaxlib')}"]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join([*parts, _MATRICES[matrix_dtype]]))
