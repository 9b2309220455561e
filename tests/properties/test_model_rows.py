"""Who shares a batch with a row cannot change its bits: at one compiled shape, f32, on CPU.

A subject row is put among two sets of random neighbours, at two places, with NaN in prompt rows that it does
not use (but neighbours do), other padding ids beyond its length, and slots full of NaN from an earlier
tenant.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.model.config import named_config
from chorus_server.model.layout import Layout
from chorus_server.model.t5 import Model, assemble, random_tensors

CONFIG = named_config("tiny")
V, ROWS = CONFIG.padded_vocab_size, 40
SHAPES = [(2, 8, 4, "unrolled"), (5, 19, 6, "unrolled"), (8, 64, 8, "unrolled"), (16, 32, 5, "unrolled"),
          (7, 33, 9, "unrolled"), (5, 19, 6, "scanned")]  # fmt: skip


@cache
def _model(layout: Layout) -> Model:
    return assemble(CONFIG, layout, "float32", random_tensors(CONFIG, 0))


@cache
def _jitted(layout: Layout) -> dict[str, Any]:
    functions = _model(layout).functions
    names = ("encode", "encoder_memory", "decode_step", "decode_targets", "target_log_probabilities")
    return {name: jax.jit(getattr(functions, name)) for name in names}


def _bits(array: Any) -> Any:
    return np.ascontiguousarray(np.asarray(array)).view(np.int32)


class Subject:
    """One row: its text, target and sampled tokens."""

    def __init__(self, generator: np.random.Generator, L: int, T: int) -> None:
        self.length = int(generator.integers(1, L + 1))
        self.ids = generator.integers(0, V + ROWS, self.length)
        self.targets = generator.integers(0, V, (3, T))
        self.target_lengths = generator.integers(0, T + 1, 3)
        self.tokens = generator.integers(0, V, T)


def _run(
    layout: Layout, shape: tuple[int, int, int], subject: Subject, place: int, rows: Any, seed: int
) -> list[Any]:
    """Bits of everything that the model says about the subject at `place` among random neighbours."""
    B, L, T = shape
    generator = np.random.default_rng(seed)
    call, params, functions = _jitted(layout), _model(layout).params, _model(layout).functions
    ids = generator.integers(0, V + ROWS, (B, L)).astype(np.int32)
    lengths = generator.integers(0, L + 1, B).astype(np.int32)
    targets = generator.integers(0, V, (B, 3, T)).astype(np.int32)
    target_lengths = generator.integers(0, T + 1, (B, 3)).astype(np.int32)
    ids[place, : subject.length], lengths[place] = subject.ids, subject.length
    targets[place], target_lengths[place] = subject.targets, subject.target_lengths
    encoded = call["encode"](params, rows, ids, lengths)
    memory = call["encoder_memory"](params, encoded, lengths)
    axis = functions.slot_axis
    found = [encoded[place], *(np.take(np.asarray(leaf), place, axis) for leaf in jax.tree.leaves(memory))]
    found.append(call["decode_targets"](params, encoded, lengths, targets, target_lengths)[place])
    found.append(call["target_log_probabilities"](params, encoded, lengths, targets, target_lengths)[place])
    cache = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, np.float32), functions.init_cache(B, T))
    index = generator.integers(0, B, B).astype(np.int32)
    index[place] = place
    for position in range(min(T, 4)):
        tokens = generator.integers(0, V, B).astype(np.int32)
        positions = generator.integers(0, T, B).astype(np.int32)
        tokens[place], positions[place] = subject.tokens[position], position
        own = (index,) if position == 3 else ()
        logits, cache = call["decode_step"](params, cache, memory, lengths, tokens, positions, *own)
        found.append(logits[place])
    return [_bits(each) for each in found]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_and_place_never_change_a_bit(shape: tuple[int, int, int, Layout]) -> None:
    B, L, T, layout = shape

    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**32 - 1), st.integers(0, B - 1), st.integers(0, B - 1))
    def check(seed: int, first: int, second: int) -> None:
        generator = np.random.default_rng(seed)
        subject = Subject(generator, L, T)
        rows = generator.standard_normal((ROWS, CONFIG.d_model)).astype(np.float32)
        poisoned = rows.copy()
        used = {int(i) - V for i in subject.ids if i >= V}
        poisoned[[row for row in range(ROWS) if row not in used]] = np.nan
        alone = _run(layout, (B, L, T), subject, first, rows, seed)
        mixed = _run(layout, (B, L, T), subject, second, poisoned, seed + 1)
        for one, other in zip(alone, mixed, strict=True):
            np.testing.assert_array_equal(one, other)

    check()


def test_control_a_mean_over_the_batch_is_caught() -> None:
    """The comparison sees one unit in the last place: a batch-wide shift of that size fails it."""
    generator = np.random.default_rng(4)
    subject = Subject(generator, 19, 6)
    rows = generator.standard_normal((ROWS, CONFIG.d_model)).astype(np.float32)
    first = _run("unrolled", (5, 19, 6), subject, 0, rows, 1)
    nudged = np.nextafter(first[0].view(np.float32), np.float32(np.inf))
    assert (nudged.view(np.int32) != first[0]).any()
    rows[int(subject.ids[subject.ids >= V][0]) - V] += np.float32(1e-3)
    moved = _run("unrolled", (5, 19, 6), subject, 0, rows, 1)
    assert any((one != other).any() for one, other in zip(first, moved, strict=True))
