"""The tree of an input's targets gives each target the log probability that it has by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from chorus_server.engine.executor.packing import pack_trees
from chorus_server.engine.executor.testing import tiny_model
from chorus_server.engine.target_trees import target_trees
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.t5 import Model
from chorus_server.model.trees import Trees

LENGTHS = np.array([5, 9, 2], np.int32)
T = 12


def _targets() -> list[tuple[tuple[int, ...], ...]]:
    random = np.random.default_rng(0)
    return [
        tuple(tuple(random.integers(2, 7, size=n).tolist()) for n in random.integers(1, T, size=count))
        for count in (5, 1, 9)
    ]


def _inputs(model: Model) -> Any:
    ids = np.random.default_rng(1).integers(2, 160, (3, 9)).astype(np.int32)
    table = np.zeros((1, model.config.d_model), np.float32)
    return jax.jit(model.functions.encode)(model.params, table, ids, LENGTHS)


def _alone(model: Model, encoded: Any) -> list[NDArray[Any]]:
    """Each target in a row of its own."""
    found = []
    for row, targets in enumerate(_targets()):
        ids, lengths = (
            np.zeros((1, len(targets), T), np.int32),
            np.array([[len(t) for t in targets]], np.int32),
        )
        for place, target in enumerate(targets):
            ids[0, place, : len(target)] = target
        sums = jax.jit(model.functions.target_log_probabilities)(
            model.params, encoded[row : row + 1], LENGTHS[row : row + 1], ids, lengths
        )
        found.append(np.asarray(sums)[0])
    return found


def _in_trees(model: Model, encoded: Any, nodes: int) -> list[NDArray[Any]]:
    trees = [target_trees(targets, (nodes,)) for targets in _targets()]
    parts = [(row, tree) for row, several in enumerate(trees) for tree in several]
    start = model.config.decoder_start_id
    chosen, packed = pack_trees(parts, (len(parts), nodes), start, 3)
    memory = jax.jit(model.functions.encoder_memory)(model.params, encoded[chosen], LENGTHS[chosen])
    each = jax.jit(model.functions.tree_log_probabilities)(model.params, memory, LENGTHS[chosen], packed)
    found: list[NDArray[Any]] = [np.zeros(len(targets)) for targets in _targets()]
    for place, (row, tree) in enumerate(parts):
        found[row][tree.targets] = tree.sums(np.asarray(each)[place])
    return found


@pytest.mark.parametrize("nodes", [12, 64, 320])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_target_in_a_tree_has_the_log_probability_that_it_has_alone(layout: Layout, nodes: int) -> None:
    """Trees that the targets fill several of; one that has room for all; one that is more than a chunk."""
    model = tiny_model(layout=layout)
    encoded = _inputs(model)
    for ours, alone in zip(_in_trees(model, encoded, nodes), _alone(model, encoded), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trees_of_several_sizes_of_one_input_in_one_pass(layout: Layout) -> None:
    """Three trees of 12 nodes and one of 4, beside places that no tree has."""
    model = tiny_model(layout=layout)
    encoded, targets = _inputs(model), _targets()[2]
    trees = target_trees(targets, (12,))
    assert len(trees) >= 3
    small = target_trees(((9, 1), (8, 1)), (4,))
    start = model.config.decoder_start_id
    several = tuple(
        pack_trees([(0, t) for t in part], (C, J), start, 3)[1]
        for part, C, J in ((trees, 5, 12), (small, 2, 4))
    )
    memory = jax.jit(model.functions.encoder_memory)(model.params, encoded[2:], LENGTHS[2:])
    found = jax.jit(model.functions.log_probabilities_of_one)(model.params, memory, LENGTHS[2:], several)
    alone = jax.jit(model.functions.tree_log_probabilities)
    for part, each in zip((trees, small), found, strict=True):
        for place, tree in enumerate(part):
            _, one = pack_trees([(0, tree)], (1, tree.nodes), start, 3)
            expected = tree.sums(np.asarray(alone(model.params, memory, LENGTHS[2:], one))[0])
            np.testing.assert_allclose(tree.sums(np.asarray(each)[place]), expected, rtol=2e-5, atol=2e-5)


def test_with_matrices_in_bf16_too() -> None:
    model = tiny_model(matrix_dtype="bfloat16")
    encoded = _inputs(model)
    for ours, alone in zip(_in_trees(model, encoded, 64), _alone(model, encoded), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=2e-3, atol=2e-3)


def test_control_nodes_that_see_all_before_them_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(self: Trees) -> Any:
        J = self.ends.shape[1]
        return jnp.broadcast_to(jnp.tril(jnp.ones((J, J), bool)), (self.ends.shape[0], 1, J, J))

    monkeypatch.setattr(Trees, "visible", before)
    model = tiny_model()
    encoded = _inputs(model)
    assert not np.allclose(_in_trees(model, encoded, 64)[2], _alone(model, encoded)[2], atol=1e-2)


def test_control_distances_by_place_instead_of_depth_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trees.bias

    def by_place(self: Trees, table: Any, config: Any) -> Any:
        places = jnp.broadcast_to(jnp.arange(self.ends.shape[1]), self.ends.shape)
        return real(Trees(self.tokens, places, self.ends, self.sources, self.pieces), table, config)

    monkeypatch.setattr(Trees, "bias", by_place)
    model = tiny_model()
    encoded = _inputs(model)
    assert not np.allclose(_in_trees(model, encoded, 64)[2], _alone(model, encoded)[2], atol=1e-3)
