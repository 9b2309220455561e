"""The trees of an input that has a step for itself are scored in one dispatch, with the bits that they always
have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.executor import JaxExecutor
from chorus_server.engine.executor.packing import score_dispatches
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor, tiny_model
from chorus_server.engine.plans import TREES_TOGETHER, BlockShape, Ladder, ScorePlan
from chorus_server.engine.target_trees import FEW_TREES, Targets, target_trees

LADDER = Ladder(((1, 16), (4, 16)), (BlockShape(16, 8, 4),), ((1, 4), (4, 4), (1, 8), (4, 8)), 4)
TEXT = (17, 33, 5, 1)


def targets_of(count: int) -> Targets:
    random = np.random.default_rng(count)
    found = ((*random.integers(2, 9, size=int(random.integers(1, 6))).tolist(), 1) for _ in range(count))
    return tuple(dict.fromkeys(found))


def plan_of(rows: int, *targets: Targets, text: Any = TEXT) -> ScorePlan:
    return ScorePlan(0, (rows, 16), (text,) * len(targets), targets)


@pytest.mark.parametrize("count", [1, 3, 8, 20, 60])
def test_each_tree_is_in_one_dispatch_and_few_of_them_are_by_themselves(count: int) -> None:
    targets = targets_of(count)
    trees = target_trees(targets, (4, 8))
    largest = [tree for tree in trees if tree.nodes == 8]
    found = list(score_dispatches(plan_of(1, targets), LADDER))
    said = sorted(id(tree) for _, groups in found for group in groups for _, tree in group)
    assert said == sorted(map(id, trees))
    full = -(-len(largest) // TREES_TOGETHER)
    joined = sum(len(largest[TREES_TOGETHER * number :]) > FEW_TREES for number in range(full))
    assert len(found) == full + max(0, len(trees) - len(largest) - joined)
    for bucket, groups in found:
        places = LADDER.trees_of_one(bucket) or (bucket,)
        assert all(len(group) <= room for group, (room, _) in zip(groups, places, strict=True))


@pytest.mark.parametrize("matrices", [None, "bfloat16"])
def test_an_input_alone_has_its_bits_and_the_numbers_that_it_has_beside_others(matrices: Any) -> None:
    executor: JaxExecutor = tiny_executor(
        LADDER,
        MemoryPrompts({}),
        model=tiny_model(matrix_dtype=matrices),
        without=("decode", "admit"),
    )

    def scored(plan: ScorePlan) -> Any:
        return executor.collect(executor.dispatch(plan)).log_probabilities  # type: ignore[union-attr]

    seen = set()
    for count in (1, 8, 20, 60):
        targets = targets_of(count)
        seen.add(min(FEW_TREES + 1, len(target_trees(targets, (4, 8)))))
        (alone,) = scored(plan_of(1, targets))
        beside = scored(plan_of(4, targets, targets_of(5), targets, targets_of(7)))
        (again,) = scored(plan_of(1, targets))
        assert again == alone and beside[0] == beside[2]
        np.testing.assert_allclose(alone, beside[0], rtol=2e-5 if matrices is None else 3e-3, atol=2e-5)
        (control,) = scored(plan_of(1, targets, text=(*TEXT[:-1], 6, 1)))
        assert control != alone
    assert len(seen) > 1


@pytest.mark.parametrize("matrices", [None, "bfloat16"])
def test_beside_others_an_input_whose_trees_are_scored_together_has_its_bits(matrices: Any) -> None:
    """A ladder may have a dispatch of one input only, for the largest trees of however many inputs."""
    executor: JaxExecutor = tiny_executor(
        replace(LADDER, score_buckets=((4, 4), (1, 8))),
        MemoryPrompts({}),
        model=tiny_model(matrix_dtype=matrices),
        without=("decode", "admit"),
    )

    def scored(*inputs: tuple[Any, Targets]) -> Any:
        texts, targets = zip(*inputs, strict=True)
        return executor.collect(executor.dispatch(ScorePlan(0, (4, 16), texts, targets))).log_probabilities  # type: ignore[union-attr]

    for count in (1, 8, 20, 60):
        its = (TEXT, targets_of(count))
        (alone,) = scored(its)
        few, many = ((9, 4, 1), targets_of(5)), ((3, 40, 21, 8, 1), targets_of(61))
        assert scored(few, its, many)[1] == alone == scored(many, few, many, its)[3]
        (control,) = scored(((*TEXT[:-1], 6, 1), its[1]))
        assert control != alone
