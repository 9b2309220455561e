"""Which leaves of its arguments each program reads: what XLA keeps, and so what it costs in memory and bytes.

A path begins with the argument's number; the first argument is `params`. Kept true by a test that compares
with XLA.
"""

from __future__ import annotations

Path = tuple[str, ...]
_MEMORY = ("key", "value")


def encoder(path: Path) -> bool:
    """Embedding and encoder; all of the other arguments."""
    return path[0] != "0" or path[1] in ("embedding", "encoder")


def admission(path: Path) -> bool:
    """What makes encoder memory. Whether a slot starts active is worked out from the encodings."""
    if path[0] == "0":
        return _makes_memory(path)
    return path[0] != "5" or path[-2:] != ("slots", "active")


def targets(path: Path) -> bool:
    """Embedding, decoder and head."""
    return path[0] != "0" or path[1] != "encoder"


def decoder(path: Path) -> bool:
    """As `targets`, without what makes encoder memory. A loop over stacked layers drops nothing: there it is
    `targets`."""
    return targets(path) and not (path[0] == "0" and _makes_memory(path))


def _makes_memory(path: Path) -> bool:
    return "cross_attention" in path and path[-1] in _MEMORY
