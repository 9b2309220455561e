"""What changes logits, against a plain numpy reference; rows without such settings keep their bits."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.engine.executor import penalties
from chorus_server.engine.executor.state import initial_slots

V, T, S = 41, 24, 6

change = jax.jit(penalties.change_logits)


def reference(row: np.ndarray[Any, Any], tokens: list[int], asked: dict[str, Any]) -> np.ndarray[Any, Any]:
    """One row, one rule after the other."""
    row = row.astype(np.float64)
    for id, bias in asked["logit_bias"]:
        row[id] += bias
    for token in set(tokens):
        repetition = asked["repetition_penalty"]
        row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
        row[token] -= asked["frequency_penalty"] * tokens.count(token) + asked["presence_penalty"]
    size = asked["no_repeat_ngram_size"]
    if size:
        seen = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
        for token in range(V):
            if len(tokens) >= size - 1 and (*tokens[len(tokens) - size + 1 :], token) in seen:
                row[token] = -np.inf
    return row


ROW = st.fixed_dictionaries(
    {
        "repetition_penalty": st.sampled_from([1.0, 0.5, 1.7]),
        "frequency_penalty": st.sampled_from([0.0, 0.25, -2.0]),
        "presence_penalty": st.sampled_from([0.0, 1.5, -0.75]),
        "no_repeat_ngram_size": st.integers(0, 10),
        "logit_bias": st.dictionaries(st.integers(0, V - 1), st.floats(-100, 100, width=32), max_size=9).map(
            lambda biases: tuple(biases.items())
        ),
    }
)
NEUTRAL = {
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "logit_bias": (),
}


def _arrays(rows: list[dict[str, Any]]) -> dict[str, Any]:
    arrays: Any = dict(initial_slots(len(rows)).settings)
    for slot, row in enumerate(rows):
        for name, value in row.items():
            if name != "logit_bias":
                arrays[name][slot] = value
        for place, (id, bias) in enumerate(row["logit_bias"]):
            arrays["logit_bias_ids"][slot, place] = id
            arrays["logit_bias_values"][slot, place] = bias
    return arrays


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    rows=st.lists(st.one_of(st.just(NEUTRAL), ROW), min_size=S, max_size=S),
    seed=st.integers(0, 10_000),
    alphabet=st.integers(1, V),
)
def test_every_row_changes_as_its_own_settings_say(
    rows: list[dict[str, Any]], seed: int, alphabet: int
) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(S, V)).astype(np.float32) * 4
    history = random.integers(0, alphabet, size=(S, T)).astype(np.int32)  # few ids: many repetitions
    made = random.integers(0, T + 1, size=S).astype(np.int32)
    arrays = _arrays(rows)
    got = np.asarray(change(values, arrays, history, made))
    for slot, row in enumerate(rows):
        expected = reference(values[slot], history[slot, : made[slot]].tolist(), row)
        np.testing.assert_allclose(got[slot], expected, rtol=1e-5, atol=1e-5)
        if row == NEUTRAL:
            assert got[slot].tobytes() == values[slot].tobytes()
    changes = np.asarray(penalties.changes_logits(arrays))
    assert [bool(each) for each in changes] == [row != NEUTRAL for row in rows]


def test_tokens_beyond_those_made_do_not_count() -> None:
    """A row's former occupant, or a place not written yet."""
    history = np.full((1, T), 7, np.int32)
    row = NEUTRAL | {"presence_penalty": 1.0, "no_repeat_ngram_size": 1}
    values = np.zeros((1, V), np.float32)
    assert not np.asarray(change(values, _arrays([row]), history, np.zeros(1, np.int32))).any()
    assert np.asarray(change(values, _arrays([row]), history, np.ones(1, np.int32)))[0, 7] == -np.inf
