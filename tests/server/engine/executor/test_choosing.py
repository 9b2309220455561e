"""Token choice against a plain numpy reference, ties included."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.engine.executor import choosing
from chorus_server.engine.executor.choosing import TokenRules
from chorus_server.engine.executor.state import initial_slots

V = 131
RULES = TokenRules(vocab_size=127, pad_id=0, eos_id=1)

keep_k = jax.jit(choosing.keep_top_k)
keep_p = jax.jit(choosing.keep_top_p)
draw = jax.jit(choosing.draw)
choose = jax.jit(
    lambda logits, settings, made, active: choosing.choose(
        logits, RULES, settings, settings["place"], made, active, jnp.zeros((logits.shape[0], 8), jnp.int32)
    )
)


def _settings(S: int, **given: Any) -> dict[str, jax.Array]:
    """Greedy rows, but for what is given; their place in their group beside their settings."""
    slots = initial_slots(S)
    values = slots.settings | {"place": slots.place}
    values |= {name: np.asarray(value, values[name].dtype) for name, value in given.items()}
    return {name: jnp.asarray(value) for name, value in values.items()}


def _logits(seed: int, S: int = 4, coarse: bool = False) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).normal(size=(S, V)).astype(np.float32) * 3
    return np.round(values) if coarse else values  # coarse: many ties


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10_000), k=st.integers(1, V + 5), coarse=st.booleans())
def test_top_k_keeps_every_id_at_least_as_likely_as_the_kth(seed: int, k: int, coarse: bool) -> None:
    logits = _logits(seed, coarse=coarse)
    kept = np.isfinite(np.asarray(keep_k(logits, np.full(4, k, np.int32))))
    kth = np.sort(logits, axis=1)[:, ::-1][:, min(k, V) - 1]
    np.testing.assert_array_equal(kept, logits >= kth[:, None])


def test_top_k_of_0_keeps_all() -> None:
    logits = _logits(1)
    np.testing.assert_array_equal(np.asarray(keep_k(logits, np.zeros(4, np.int32))), logits)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10_000), p=st.floats(0.01, 0.999), coarse=st.booleans())
def test_top_p_keeps_the_smallest_likely_set_that_reaches_p(seed: int, p: float, coarse: bool) -> None:
    logits = _logits(seed, coarse=coarse)
    kept = np.isfinite(np.asarray(keep_p(logits, np.full(4, p, np.float32))))
    for row, mask in zip(logits.astype(np.float64), kept, strict=True):
        probabilities = np.exp(row - row.max())
        probabilities /= probabilities.sum()
        assert mask.any()
        least = row[mask].min()
        np.testing.assert_array_equal(mask, row >= least)  # a threshold, ties kept together
        assert probabilities[mask].sum() >= p - 1e-5  # it reaches p ...
        assert probabilities[row > least].sum() < p + 1e-5  # ... and would not without its least likely ids


def test_ordered_bits_order_as_floats_do() -> None:
    values = np.array([[-np.inf, -3e38, -1.0, -2e-38, -0.0, 0.0, 2e-38, 2.5, 3e38, np.inf]], np.float32)
    bits = np.asarray(choosing.ordered_bits(jnp.asarray(values)))[0].astype(np.int64)
    assert (np.sign(np.diff(bits)) == np.sign(np.diff(values[0]))).all()


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10_000), noise=st.floats(0, 1, exclude_max=True, width=32))
def test_draw_inverts_the_running_sum(seed: int, noise: float) -> None:
    logits = _logits(seed)
    logits[:, ::3] = -np.inf
    chosen = np.asarray(draw(logits, np.full(4, noise, np.float32)))
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    running = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    for row, index in enumerate(chosen):
        assert np.isfinite(logits[row, index])
        before = running[row, index] - weights[row, index] / weights[row].sum()
        assert before - 1e-5 <= noise <= running[row, index] + 1e-5


def test_draws_follow_the_distribution() -> None:
    S, rounds = 64, 60
    logits = np.tile(_logits(3, S=1) / 3, (S, 1))
    counts = np.zeros(V)
    plan = _settings(S, temperature=np.full(S, 0.7), seed=np.arange(S))
    for made in range(rounds):
        chosen = np.asarray(choose(logits, plan, np.full(S, made, np.int32), np.ones(S, bool)))
        counts += np.bincount(chosen, minlength=V)
    allowed = logits[0].astype(np.float64) / 0.7
    allowed[[0, *range(127, V)]] = -np.inf
    expected = np.exp(allowed - allowed.max())
    expected *= S * rounds / expected.sum()
    likely = expected > 20
    assert likely.sum() >= 10
    # Pearson's chi-square over the likely ids: the 99.99 % point for that many degrees of freedom is below 4
    # x count.
    assert ((counts - expected)[likely] ** 2 / expected[likely]).sum() < 4 * likely.sum()


def test_greedy_takes_the_first_of_the_largest_and_never_a_forbidden_id() -> None:
    logits = _logits(5)
    logits[:, 0] = 90
    logits[:, 128] = 99
    logits[0, [40, 60]] = 50
    logits[1:, 1] = 50
    plan = _settings(4, min_new_tokens=[0, 0, 3, 3])
    chosen = np.asarray(choose(logits, plan, np.array([0, 0, 2, 3], np.int32), np.ones(4, bool)))
    assert chosen[0] == 40 and chosen[1] == 1 and chosen[3] == 1
    assert chosen[2] == np.argmax(np.where(np.isin(np.arange(V), [0, 1, 127, 128, 129, 130]), -99, logits[2]))


@pytest.mark.parametrize("rules", [TokenRules(380, 0, 1), TokenRules(300, 127, 128), TokenRules(384, 383, 0)])
@pytest.mark.parametrize("seed", range(8))
def test_greedy_by_lanes_is_greedy_over_all(rules: TokenRules, seed: int) -> None:
    """With ties, and with the largest logit at an id that may not be chosen."""
    generator = np.random.default_rng(seed)
    logits = generator.integers(-2, 3, (6, 3 * 128)).astype(np.float32)
    logits[:, [rules.pad_id, rules.eos_id]] = 9
    logits[::2, rules.vocab_size :] = 10
    made, least = generator.integers(0, 3, (2, 6)).astype(np.int32)
    given = _settings(6, min_new_tokens=least)
    chosen = choosing.choose(
        logits, rules, given, given["place"], made, np.ones(6, bool), jnp.zeros((6, 8), jnp.int32)
    )
    ids = np.arange(logits.shape[1])
    never = (ids >= rules.vocab_size) | (ids == rules.pad_id)
    early = (ids == rules.eos_id) & (made < least)[:, None]
    np.testing.assert_array_equal(chosen, np.where(never | early, -np.inf, logits).argmax(axis=1))


@pytest.mark.parametrize("temperature", [1e-6, 1e-3])
def test_a_vanishing_temperature_is_greedy(temperature: float) -> None:
    logits = _logits(8)
    made, active = np.zeros(4, np.int32), np.ones(4, bool)
    cold = choose(logits, _settings(4, temperature=np.full(4, temperature), seed=np.arange(4)), made, active)
    np.testing.assert_array_equal(np.asarray(cold), np.asarray(choose(logits, _settings(4), made, active)))


def test_the_choice_depends_on_seed_place_and_index_and_on_nothing_else() -> None:
    S = 6
    logits = np.tile(_logits(9, S=1) / 3, (S, 1))
    plan = _settings(S, temperature=np.ones(S), seed=[7, 7, 7, 8, 7, 7], place=[0, 0, 1, 0, 0, 0])
    made = np.array([0, 0, 0, 0, 1, 0], np.int32)
    noise = np.asarray(choosing.uniform(plan["seed"], plan["place"], jnp.asarray(made)))
    assert noise[0] == noise[1] == noise[5]
    assert len({noise[0], noise[2], noise[3], noise[4]}) == 4
    chosen = np.asarray(choose(logits, plan, made, np.ones(S, bool)))
    assert chosen[0] == chosen[1] == chosen[5]
