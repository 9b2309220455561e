"""Which leaves of its arguments each program reads. XLA keeps these, so they count in memory and in bytes
moved.

A path begins with the argument's number; the first argument is `params`. A test compares these rules with
XLA.
"""

from __future__ import annotations

from collections.abc import Callable

Path = tuple[str, ...]
_MEMORY = ("key", "value")


def encoder(path: Path) -> bool:
    """The embedding, the encoder, the layers that make encoder memory, and all of the other arguments."""
    return path[0] != "0" or path[1] in ("embedding", "encoder") or _makes_memory(path)


def admission(apart: bool) -> Callable[[Path], bool]:
    """Everything. Whether a slot starts active is computed from the rows, and a scatter needs no count."""

    def reads(path: Path) -> bool:
        if path[0] != "3":
            return True
        return path[-2:] != ("slots", "active") and not (apart and path[-1] == "count")

    return reads


def targets(path: Path) -> bool:
    """The embedding, the decoder and the head."""
    return path[0] != "0" or path[1] != "encoder"


def decoder(path: Path) -> bool:
    """The same as `targets` without the layers that make encoder memory. A loop over stacked layers drops
    nothing, so there it equals `targets`."""
    return targets(path) and not (path[0] == "0" and _makes_memory(path))


def _makes_memory(path: Path) -> bool:
    return "cross_attention" in path and path[-1] in _MEMORY
