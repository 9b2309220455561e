"""From a request's targets to the trees in which they are scored. Plain arrays, made once for each set.

In sorted order, a target begins as the one before it does for as long as it can, so one pass makes a tree in
preorder (`chorus_server.model.trees`). Where the largest compiled tree is full, another begins at the start.
The order in which the targets were sent changes neither trees nor sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Targets = tuple[tuple[int, ...], ...]

MOST_TREES = 128
"""In how many trees the targets of one request may be scored. It bounds the time of a step."""

FEW_TREES = 2
"""Up to so many of the largest trees of an input are scored one after another, more of them together."""

EDGES_PER_NODE = 2
"""How many edges a compiled tree has room for. Distinct targets that end in `</s>` need no more: one leads to
each node, and at most one `</s>` follows it."""

_Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class TargetTree:
    """Targets of a request that are scored together, in one row of a dispatch.

    Attributes:
        nodes: J of the compiled tree.
        tokens: of each node but the root, which reads the start.
        depths, ends: of each node; see `model.trees.Trees`.
        sources, pieces: of each edge.
        targets: which of the request's targets these are.
        edges: the edges of these targets, one target after another.
        starts: where each target's edges begin in `edges`.
    """

    nodes: int
    tokens: _Ints
    depths: _Ints
    ends: _Ints
    sources: _Ints
    pieces: _Ints
    targets: _Ints
    edges: _Ints
    starts: _Ints

    def sums(self, log_probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log probability of each of `targets`, from those of the edges."""
        each = log_probabilities[self.edges].astype(np.float64)
        return np.add.reduceat(each, self.starts)


@lru_cache(maxsize=128)
def target_trees(targets: Targets, sizes: tuple[int, ...]) -> tuple[TargetTree, ...]:
    """The trees of these targets. No target is empty, or longer than the largest size.

    Args:
        sizes: nodes of the compiled trees, ascending.
    """
    trees, growing = [], _Growing()
    for index in sorted(range(len(targets)), key=targets.__getitem__):
        target = targets[index]
        shared = growing.shared(target)
        if not growing.holds(len(target), shared, sizes[-1]):
            trees.append(growing.finished(sizes))
            growing, shared = _Growing(), 0
        growing.add(index, target, shared)
    return (*trees, growing.finished(sizes))


@dataclass(slots=True)
class _Growing:
    """A tree under construction. `path` and `way` are the nodes and the edges of its last target."""

    tokens: list[int] = field(default_factory=lambda: [0])
    depths: list[int] = field(default_factory=lambda: [0])
    ends: list[int] = field(default_factory=lambda: [0])
    sources: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    last: tuple[int, ...] = ()
    path: list[int] = field(default_factory=lambda: [0])
    way: list[int] = field(default_factory=list)

    def shared(self, target: tuple[int, ...]) -> int:
        """How many pieces the target begins with that the last one begins with too."""
        low, high = 0, min(len(target), len(self.last))
        while low < high:  # slices are compared many pieces at a time
            middle = (low + high + 1) // 2
            if target[low:middle] == self.last[low:middle]:
                low = middle
            else:
                high = middle - 1
        return low

    def holds(self, length: int, shared: int, most: int) -> bool:
        """Whether a target of this length has room in a tree of `most` nodes."""
        nodes = len(self.tokens) + max(0, length - min(shared + 1, len(self.path)))
        return nodes <= most and len(self.pieces) + length - shared <= EDGES_PER_NODE * most

    def add(self, index: int, target: tuple[int, ...], shared: int) -> None:
        """Add one of the request's targets, which follows the last one in order."""
        for node in self.path[shared + 1 :]:
            self.ends[node] = len(self.tokens)
        del self.path[shared + 1 :], self.way[shared:]
        for depth in range(len(self.path), len(target)):
            self.path.append(len(self.tokens))
            self.tokens.append(target[depth - 1])
            self.depths.append(depth)
            self.ends.append(0)
        for depth in range(shared, len(target)):
            self.way.append(len(self.pieces))
            self.sources.append(self.path[depth])
            self.pieces.append(target[depth])
        self.targets.append(index)
        self.starts.append(len(self.edges))
        self.edges += self.way
        self.last = target

    def finished(self, sizes: tuple[int, ...]) -> TargetTree:
        """The tree, in the smallest size that holds it."""
        for node in self.path:
            self.ends[node] = len(self.tokens)
        nodes = next(
            size for size in sizes if len(self.tokens) <= size and len(self.pieces) <= EDGES_PER_NODE * size
        )
        of_nodes = (self.tokens, self.depths, self.ends)
        lists = (*of_nodes, self.sources, self.pieces, self.targets, self.edges, self.starts)
        return TargetTree(nodes, *(np.array(each, np.int32) for each in lists))
