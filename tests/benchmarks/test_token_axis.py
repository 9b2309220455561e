"""Rows end to end on one axis of tokens: the numbers of padded rows, and bits that no neighbour changes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import token_axis
from benchmarks.token_axis import Bucket, TokenAxis, bits
from chorus_server.engine.executor.testing import tiny_model

BUCKET: Bucket = (61, 5, 24)
"""Odd sizes, so that rows meet the edges of every tile."""


def axis_of(matrix_dtype: Any = None) -> tuple[TokenAxis, list[list[int]]]:
    """A tiny model, and rows of every length up to L. Some read prompt rows, one of which is NaN."""
    random, model = np.random.default_rng(0), tiny_model(matrix_dtype=matrix_dtype)
    table = random.normal(size=(6, model.config.d_model)).astype(np.float32)
    table[5] = np.nan
    V, rows = model.config.padded_vocab_size, []
    for length in range(1, BUCKET[2] + 1):
        row = random.integers(2, 160, size=length).tolist()
        row[0] = V + length % 5 if length % 2 else row[0]
        rows.append(row)
    return TokenAxis(model, jnp.asarray(table)), [*rows, [V + 5, 7, 1]]


@pytest.fixture(scope="module", params=[None, "bfloat16"], ids=["f32", "bf16"])
def made(request: pytest.FixtureRequest) -> tuple[TokenAxis, list[list[int]]]:
    return axis_of(request.param)


def test_rows_have_the_same_bits_at_any_offset_beside_any_neighbours(
    made: tuple[TokenAxis, list[list[int]]],
) -> None:
    compared, different = bits(made[0], BUCKET, made[1], 300)
    assert compared > 600 and different == 0


def test_the_numbers_are_those_of_padded_rows(made: tuple[TokenAxis, list[list[int]]]) -> None:
    axis, rows = made
    some = [rows[23], rows[0], rows[11], rows[-1], rows[5]]
    want = np.asarray(axis.program((5, 24))(*axis.arguments(some, (5, 24))))
    rounding = 2e-2 if axis.model.matrix_dtype == jnp.bfloat16 else 2e-5
    for index, got in enumerate(axis.encoded(some, BUCKET)):
        np.testing.assert_allclose(got, want[index, : len(got)], atol=rounding, rtol=rounding)


def test_what_belongs_to_no_row_is_zero(made: tuple[TokenAxis, list[list[int]]]) -> None:
    axis, rows = made
    arguments = axis.arguments([rows[9], rows[-1]], BUCKET, 7)
    out = np.asarray(axis.program(BUCKET)(*arguments))
    end = 7 + len(rows[9]) + len(rows[-1])
    assert not out[:7].any() and not out[end:].any()
    assert np.isfinite(out[7 : 7 + len(rows[9])]).all() and np.isnan(out[end - 1]).all()


def test_control_another_shape_has_other_bits(made: tuple[TokenAxis, list[list[int]]]) -> None:
    axis, rows = made
    narrow = (1, 1, 1)
    one, other = axis.encoded([rows[0]], BUCKET)[0], axis.encoded([rows[0]], narrow)[0]
    np.testing.assert_allclose(one, other, atol=2e-2, rtol=2e-2)
    assert one.tobytes() != other.tobytes()


def test_control_a_gather_that_is_not_masked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour's keys get a weight of 0 all the same, but 0 x NaN is NaN."""
    real = jnp.where

    def careless(condition: Any, x: Any, y: Any) -> Any:
        beyond = isinstance(y, int) and y == BUCKET[0]
        return jnp.minimum(x, BUCKET[0] - 1) if beyond else real(condition, x, y)

    monkeypatch.setattr(token_axis.jnp, "where", careless)
    axis, rows = axis_of()
    assert bits(axis, BUCKET, rows, 60)[1] > 0
