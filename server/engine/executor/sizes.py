"""Bytes that a program takes and gives on each device, from shapes alone: nothing is traced or compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from server.engine.executor.programs import Program

POINTER_BYTES = 8
"""XLA counts a table of pointers for a program of more than one result."""


@dataclass(frozen=True, slots=True)
class ProgramBytes:
    """Of one device.

    Attributes:
        arguments: that the program reads.
        results: donated ones included, with XLA's table of pointers.
        donated: results written over arguments.
    """

    arguments: int
    results: int
    donated: int


def program_bytes(program: Program) -> ProgramBytes:
    """What XLA's own analysis of the compiled program says."""
    numbered = jax.tree_util.tree_leaves_with_path(program.arguments)
    arguments = sum(leaf_bytes(leaf) for path, leaf in numbered if program.reads(_names(path)))
    results = jax.tree.leaves(program.results)
    table = POINTER_BYTES * len(results) if len(results) > 1 else 0
    donated = sum(tree_bytes(program.arguments[index]) for index in program.donate)
    return ProgramBytes(arguments, tree_bytes(results) + table, donated)


def tree_bytes(tree: Any) -> int:
    """Bytes on one device of all leaves."""
    return sum(leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def leaf_bytes(leaf: Any) -> int:
    """Bytes on one device of a shape, or of an array."""
    where = getattr(leaf, "sharding", None)
    shape = leaf.shape if where is None else where.shard_shape(leaf.shape)
    return int(math.prod(shape) * np.dtype(leaf.dtype).itemsize)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path)
