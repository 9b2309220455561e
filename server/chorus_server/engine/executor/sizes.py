"""Bytes that a program takes and returns on each device, from shapes alone. Nothing is traced or compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from chorus_server.engine.executor.programs import Program

POINTER_BYTES = 8
"""For a program with more than one result, XLA counts a table of pointers."""


@dataclass(frozen=True, slots=True)
class ProgramBytes:
    """Bytes on one device.

    Attributes:
        arguments: arguments that the program reads.
        results: all results, including donated ones, with XLA's table of pointers.
        donated: results that overwrite arguments.
    """

    arguments: int
    results: int
    donated: int


def program_bytes(program: Program) -> ProgramBytes:
    """The same numbers as XLA's own analysis of the compiled program."""
    numbered = jax.tree_util.tree_leaves_with_path(program.arguments)
    arguments = sum(leaf_bytes(leaf) for path, leaf in numbered if program.reads(_names(path)))
    results = jax.tree.leaves(program.results)
    table = POINTER_BYTES * len(results) if len(results) > 1 else 0
    donated = sum(tree_bytes(program.arguments[index]) for index in program.donate)
    return ProgramBytes(arguments, tree_bytes(results) + table, donated)


def tree_bytes(tree: Any) -> int:
    """Bytes of all leaves on one device."""
    return sum(leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def leaf_bytes(leaf: Any) -> int:
    """Bytes of a shape or an array on one device."""
    where = getattr(leaf, "sharding", None)
    shape = leaf.shape if where is None else where.shard_shape(leaf.shape)
    return int(math.prod(shape) * np.dtype(leaf.dtype).itemsize)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path)
