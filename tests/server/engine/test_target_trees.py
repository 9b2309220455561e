"""Targets as trees: every target is there once, what two begin with is shared, and no tree is too large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus_server.engine.target_trees import EDGES_PER_NODE, Targets, TargetTree, target_trees

_TARGETS = st.lists(
    st.lists(st.integers(2, 5), min_size=1, max_size=6).map(tuple), min_size=1, max_size=16
).map(tuple)


def _beginnings(tree: TargetTree) -> list[tuple[int, ...]]:
    """What the decoder has read at each node: a node sees those before it that end after it."""
    count = range(len(tree.tokens))
    return [tuple(int(tree.tokens[j]) for j in count[1 : i + 1] if i < tree.ends[j]) for i in count]


def _way(tree: TargetTree, place: int) -> list[int]:
    ends = [*tree.starts[1:], len(tree.edges)]
    return list(map(int, tree.edges[tree.starts[place] : ends[place]]))


@given(_TARGETS, st.sampled_from([(6,), (3, 8), (4, 16, 64)]))
def test_each_target_is_a_way_through_one_tree(targets: Targets, sizes: tuple[int, ...]) -> None:
    seen: list[int] = []
    for tree in target_trees(targets, sizes):
        beginnings = _beginnings(tree)
        assert [len(each) for each in beginnings] == tree.depths.tolist()
        assert len(beginnings) <= tree.nodes and len(tree.pieces) <= EDGES_PER_NODE * tree.nodes
        assert tree.nodes in sizes
        for place, index in enumerate(tree.targets.tolist()):
            edges, target = _way(tree, place), targets[index]
            assert [beginnings[tree.sources[edge]] for edge in edges] == [
                target[:depth] for depth in range(len(target))
            ]
            assert tree.pieces[edges].tolist() == list(target)
        # Nothing is there twice, and nothing that no target needs.
        wanted = {targets[i][:depth] for i in tree.targets.tolist() for depth in range(len(targets[i]))}
        assert len(beginnings) == len(wanted) and set(beginnings) == wanted
        seen += tree.targets.tolist()
    assert sorted(seen) == list(range(len(targets)))


def test_labels_of_one_and_two_pieces_take_the_smallest_tree() -> None:
    """A node for the start and one for each beginning; the last piece and `</s>` are read from them."""
    (tree,) = target_trees(((30, 1), (40, 7, 1), (40, 8, 1)), (16, 128))
    assert (tree.nodes, len(tree.tokens), len(tree.pieces)) == (16, 5, 7)
    assert tree.tokens[1:].tolist() == [30, 40, 7, 8] and tree.depths.tolist() == [0, 1, 1, 2, 2]


def test_the_order_of_the_targets_changes_no_tree() -> None:
    targets = ((9, 4, 1), (3, 1), (9, 1), (3, 5, 1))
    (one,) = target_trees(targets, (16,))
    (two,) = target_trees(targets[::-1], (16,))
    assert one.tokens.tolist() == two.tokens.tolist() and one.pieces.tolist() == two.pieces.tolist()
    assert [targets[i] for i in one.targets] == [targets[::-1][i] for i in two.targets]


def test_a_sum_is_over_the_edges_of_its_target() -> None:
    (tree,) = target_trees(((3, 1), (3, 4, 1), (5, 1)), (8,))
    values = np.arange(1, 17, dtype=np.float32)
    expected = [sum(values[_way(tree, place)]) for place in range(3)]
    assert tree.sums(values).tolist() == pytest.approx(expected)


def test_many_long_targets_take_several_trees_and_what_is_left_a_small_one() -> None:
    targets = tuple((3, n, *(7,) * 20, 1) for n in range(4, 11))
    trees = target_trees(targets, (16, 64, 128))
    assert [tree.nodes for tree in trees] == [128, 64] and [len(tree.targets) for tree in trees] == [6, 1]
