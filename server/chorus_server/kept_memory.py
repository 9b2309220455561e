"""Memory that is freed stays in the process, ready for the next program.

XLA on a CPU takes the scratch memory of each call of a program from the C library, and gives it back at the
end. glibc gives blocks of over 32 MiB back to Linux at once, so each call gets fresh pages, which Linux finds
and clears one by one (docs/decisions/0031-freed-memory-is-kept.md).
"""

from __future__ import annotations

import ctypes
from typing import Any

_LARGEST = 2**29
"""Bytes of the largest block that is kept."""

_FREE_END = 2 * _LARGEST
"""Bytes of the free end of the heap that are kept. A large block lies there beside whatever else is free; if
both were given back at 512 MiB together, most calls would get fresh pages."""

_LARGEST_BEFORE = 2**25
"""Bytes of the largest block that an older glibc agrees to keep. It has to agree to something: after any of
these calls it no longer chooses by itself, and it began at 128 KiB."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""What glibc's `mallopt` calls M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX."""


def keep_freed_memory(*, one_heap: bool = False) -> bool:
    """Have glibc keep what this process frees. Call it before threads start.

    Args:
        one_heap: keep also blocks of over 64 MiB that other threads than the main one take; a heap of their
            own can hold no more. All then share the main one, and wait for each other while they read or
            compile programs: a start takes half as long again.

    Returns:
        Whether the C library does; another than glibc is left as it is.
    """
    library: Any = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    largest = next(
        (each for each in (_LARGEST, _LARGEST_BEFORE) if library.mallopt(_MMAP_THRESHOLD, each)), 0
    )
    if largest:
        library.mallopt(_TRIM_THRESHOLD, _FREE_END)
        if one_heap:
            library.mallopt(_ARENA_MAX, 1)
    return largest > 0
