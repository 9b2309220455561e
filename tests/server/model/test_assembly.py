"""Models from canonical tensors and back."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.config import named_config
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.t5 import assemble, build, random_tensors, tensors_of

CONFIG = named_config("tiny")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_come_back_as_they_went_in(layout: Layout) -> None:
    model = assemble(CONFIG, layout, "float32", random_tensors(CONFIG, 0))
    pairs = list(zip(tensors_of(model), random_tensors(CONFIG, 0), strict=True))
    for (name, array), (expected_name, expected) in pairs:
        assert name == expected_name
        np.testing.assert_array_equal(np.asarray(array), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_assembled_model_has_the_structure_that_build_promised(layout: Layout) -> None:
    model = assemble(CONFIG, layout, "bfloat16", random_tensors(CONFIG, 0))
    promised = build(CONFIG, layout, "bfloat16")
    assert jax.tree.structure(model.params) == jax.tree.structure(promised.params)
    for leaf, expected in zip(jax.tree.leaves(model.params), jax.tree.leaves(promised.params), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
    assert model.functions == promised.functions
    assert hash(model.functions) == hash(promised.functions)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_order_does_not_matter(layout: Layout) -> None:
    backwards = list(random_tensors(CONFIG, 0))[::-1]
    model = assemble(CONFIG, layout, "float32", iter(backwards))
    for name, array in tensors_of(model):
        np.testing.assert_array_equal(np.asarray(array), dict(backwards)[name])


def _broken(change: str) -> Iterator[tuple[str, Any]]:
    for name, array in random_tensors(CONFIG, 0):
        if name != "decoder.layers.1.cross_attention.key":
            yield name, array
        elif change == "misshapen":
            yield name, array.T
        elif change == "twice":
            yield name, array
            yield name, array
    if change == "extra":
        yield "decoder.layers.2.cross_attention.key", np.zeros((26, 15), np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "missing: decoder.layers.1.cross_attention.key"),
        ("misshapen", r"'decoder.layers.1.cross_attention.key' has shape \(15, 26\), expected \(26, 15\)"),
        ("twice", "'decoder.layers.1.cross_attention.key' was given twice"),
        ("extra", "'decoder.layers.2.cross_attention.key' is not part of this model"),
    ],
)
def test_a_wrong_tensor_is_named(layout: Layout, change: str, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        assemble(CONFIG, layout, "float32", _broken(change))


def test_float16_is_refused_because_t5_overflows_in_it() -> None:
    with pytest.raises(InvalidModelError, match="float32 or bfloat16, got float16"):
        build(CONFIG, "unrolled", "float16")


def test_unknown_layout_is_refused() -> None:
    with pytest.raises(InvalidModelError, match="one of unrolled, scanned"):
        build(CONFIG, "rolled", "float32")  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_tensor_of_the_host_outlives_the_next(layout: Layout) -> None:
    """Cast to bf16 on the way, at most the tensor in hand and the one before are alive."""
    alive: list[weakref.ref[Any]] = []
    most = 0

    class Tracked(np.ndarray[Any, Any]):
        pass

    def tensors() -> Iterator[tuple[str, Any]]:
        nonlocal most
        for name, array in random_tensors(CONFIG, 0):
            tracked = array.view(Tracked)
            alive.append(weakref.ref(tracked))
            most = max(most, sum(reference() is not None for reference in alive))
            yield name, tracked
            del tracked, array

    assemble(CONFIG, layout, "bfloat16", tensors())
    assert most <= 2


def test_sharding_is_asked_for_by_logical_axes() -> None:
    seen = set()

    def where(axes: tuple[str, ...]) -> jax.sharding.Sharding:
        seen.add(axes)
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])

    model = assemble(CONFIG, "scanned", "float32", random_tensors(CONFIG, 0), where)
    assert {("vocab", "embed"), ("layers", "embed", "heads"), ("layers", "mlp", "embed")} <= seen
    assert jnp.isfinite(model.params["embedding"]).all()
