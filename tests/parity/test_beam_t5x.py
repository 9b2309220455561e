"""Beam search with a length penalty against golden numbers of T5X's own `beam_search`.

The fixture holds small random models (logits by position and last token), and what T5X found with them:
every finished hypothesis, best first, with its penalised score.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor.beams import advance, penalty
from chorus_server.engine.executor.state import MAX_BEAMS, initial_beams, initial_slots
from tests.places import FIXTURES

GOLDEN: dict[str, Any] = json.loads((FIXTURES / "parity" / "t5x_beams.json").read_text())
EOS, LIMIT = GOLDEN["eos"], GOLDEN["limit"]
_advance = jax.jit(advance, static_argnums=6)
Found = list[tuple[tuple[int, ...], float]]


def _search(logits: Any, width: int, alpha: float) -> Found:
    """Finished hypotheses of one search in slots 0 to width - 1, best first."""
    log_probs = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32) / 8)
    nothing = jnp.zeros((width, 1))
    place = np.arange(width, dtype=np.int32)
    slots = initial_slots(width)
    slots = replace(
        slots,
        leader=np.zeros(width, np.int32),
        place=place,
        settings=slots.settings
        | {
            "max_new_tokens": np.full(width, LIMIT, np.int32),
            "num_beams": np.full(width, width, np.int32),
            "length_penalty": np.full(width, alpha, np.float32),
        },
    )
    members = np.zeros((width, MAX_BEAMS), np.int32)
    members[0, :width] = place
    live = np.where(place == 0, np.float32(0), np.float32(-np.inf))
    beams = replace(initial_beams(width, LIMIT), members=members, live_scores=live)
    tokens, running = jnp.zeros(width, jnp.int32), np.ones(width, np.bool_)
    for position in range(LIMIT):
        slots = replace(slots, positions=np.full(width, position, np.int32))
        rows = log_probs[position][tokens]
        step = _advance(rows, rows, (nothing, nothing), slots, beams, running, EOS)
        beams, tokens = step.beams, step.tokens
        if bool(step.over[0]):
            break
    lengths, ended, scores = (np.asarray(each)[0] for each in (beams.lengths, beams.ended, beams.scores))
    sequences = np.asarray(beams.sequences)[0]
    return [
        (tuple(sequences[rank, : lengths[rank]].tolist()), float(scores[rank]))
        for rank in range(width)
        if ended[rank]
    ]


@pytest.mark.parametrize("case", range(len(GOLDEN["cases"])))
def test_the_penalised_search_is_t5xs(case: int) -> None:
    record = GOLDEN["cases"][case]
    for search in record["searches"]:
        found = _search(record["logits_times_8"], search["width"], search["alpha"])
        assert [tokens for tokens, _ in found] == [tuple(each["tokens"]) for each in search["finished"]]
        scores = [score for _, score in found]
        np.testing.assert_allclose(scores, [each["score"] for each in search["finished"]], rtol=1e-5)


def test_golden_penalties() -> None:
    """`((5 + n) / 6) ** alpha`: 2 to the 0.6 at seven tokens, 3 to the 0.6 at thirteen. Hugging Face's: 9 to
    the 0.5."""
    own: Any = {
        "length_penalty": np.array([0.6, 0.6, 0.6, 1.0, 0.5], np.float32),
        "length_penalty_rule": np.array([0, 0, 0, 0, 1], np.int32),
    }
    slots = replace(initial_slots(5), settings=initial_slots(5).settings | own)
    got = penalty(jnp.array([1, 7, 13, 7, 9]), slots)
    np.testing.assert_allclose(got, [1.0, 1.5157166, 1.9331820, 2.0, 3.0], rtol=1e-6)


def test_control_another_alpha_is_caught() -> None:
    """Golden results of one alpha differ from a search with another, in order or in hypotheses."""
    differing = 0
    for record in GOLDEN["cases"]:
        for search in record["searches"]:
            if search["alpha"] == 0.6:
                found = _search(record["logits_times_8"], search["width"], 2.0)
                differing += [list(t) for t, _ in found] != [each["tokens"] for each in search["finished"]]
    assert differing >= 3
