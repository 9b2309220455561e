"""Choosing tokens: greedy, temperature, top-k and top-p are per-row arrays in one program.

A row's choice depends only on its own logits, settings and `(seed, place in the group, token index)`, never
on its slot or its neighbours.

Thresholds. Top-k keeps every id whose logit is at least the k-th largest. Of those, top-p (Holtzman et al.
2020, "The Curious Case of Neural Text Degeneration") keeps the most probable ids whose mass first reaches p.
Both keep ties. The threshold is found exactly, by bisection on the order-preserving integer form of a float:
32 counting passes, several times cheaper on a CPU than a sort of `[16, 32128]`.

Drawing. For each row, one uniform number is placed into the running sum of the kept probabilities, block by
block, so noise for the whole vocabulary is never generated.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from chorus_server.engine.executor.penalties import change_logits, changes_logits
from chorus_server.engine.executor.state import MAX_TOP_LOGPROBS, SettingArrays

_LANES = 128


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which ids a model may produce. Ids at or above `vocab_size`, and `pad_id`, are never chosen."""

    vocab_size: int
    pad_id: int
    eos_id: int


Normaliser = tuple[Array, Array]


def normaliser(logits: Array) -> Normaliser:
    """What has to be subtracted from logits `[S, V]` f32, one after the other, for log probabilities: the
    largest logit and the logarithm of the sum of the others' exponentials; both `[S, 1]`."""
    largest = jnp.max(_maxima(logits), axis=-1, keepdims=True)
    return largest, jnp.log(jnp.sum(jnp.exp(logits - largest), axis=-1, keepdims=True))


def _maxima(values: Array) -> Array:
    """The largest of each `_LANES` values of `[S, V]`, `[S, n]`, or of all where V cannot be divided. It is
    the only look at all logits that a greedy choice takes."""
    lanes = _LANES if values.shape[1] % _LANES == 0 else values.shape[1]
    return jnp.max(values.reshape(values.shape[0], -1, lanes), axis=-1)


def log_probabilities(logits: Array, normal: Normaliser) -> Array:
    """Log probabilities under the unmodified distribution, of some or all logits `[S, n]`."""
    return logits - normal[0] - normal[1]


def forbid(
    values: Array, rules: TokenRules, made: Array, min_new_tokens: Array, first: int | Array = 0
) -> Array:
    """`values [S, n]` of the ids from `first` on, one number or `[S, 1]`, with minus infinity where an id may
    not be chosen; `made [S]` is each row's number of tokens so far."""
    ids = lax.broadcasted_iota(jnp.int32, values.shape, 1) + first
    never = (ids >= rules.vocab_size) | (ids == rules.pad_id)
    too_early = (ids == rules.eos_id) & (made < min_new_tokens)[:, None]
    return jnp.where(never | too_early, -jnp.inf, values)


def argmax(values: Array) -> Array:
    """Index of the first largest value of each row, `[S]` i32. Two plain reductions take half the time of
    `jnp.argmax` on a CPU."""
    ids = lax.broadcasted_iota(jnp.int32, values.shape, 1)
    largest = jnp.max(values, axis=-1, keepdims=True)
    first = jnp.min(jnp.where(values == largest, ids, values.shape[1]), axis=-1)
    return jnp.minimum(first, values.shape[1] - 1)  # in a row of NaN nothing matches


def _greedy(logits: Array, maxima: Array, rules: TokenRules, made: Array, min_new_tokens: Array) -> Array:
    """`argmax` of what `forbid` allows of `logits [S, V]`, from their `_maxima`: only lanes that hold an id
    that may be forbidden, and those of the largest, are looked at again."""
    S, V = logits.shape
    lanes = V // maxima.shape[1]
    beyond = range(rules.vocab_size // lanes, V // lanes)
    for place in sorted({rules.pad_id // lanes, rules.eos_id // lanes, *beyond}):
        some = lax.slice_in_dim(logits, place * lanes, (place + 1) * lanes, axis=1)
        allowed = forbid(some, rules, made, min_new_tokens, place * lanes)
        maxima = maxima.at[:, place].set(jnp.max(allowed, axis=-1))
    best = argmax(maxima)
    near = jnp.take_along_axis(logits.reshape(S, -1, lanes), best[:, None, None], axis=1)[:, 0]
    first = best * lanes
    return first + argmax(forbid(near, rules, made, min_new_tokens, first[:, None]))


def ordered_bits(values: Array) -> Array:
    """u32 numbers in the same order as the f32 values (minus infinity lowest, -0 and +0 equal)."""
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _largest_threshold(bits: Array, weights: Array, needed: Array) -> Array:
    """`[S]` u32: the largest t such that the weights of a row's ids with `bits >= t` add up to at least
    `needed`."""

    def refine(step: Array, threshold: Array) -> Array:
        candidate = threshold | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        mass = jnp.sum(jnp.where(bits >= candidate[:, None], weights, 0), axis=-1)
        return jnp.where(mass >= needed, candidate, threshold)

    threshold: Array = lax.fori_loop(0, 32, refine, jnp.zeros(bits.shape[0], jnp.uint32))
    return threshold


def keep_top_k(values: Array, top_k: Array) -> Array:
    """`values [S, V]` with minus infinity below each row's k-th largest value."""
    bits = ordered_bits(values)
    threshold = _largest_threshold(
        bits, jnp.ones_like(values, jnp.int32), jnp.minimum(top_k, values.shape[1])
    )
    return jnp.where((bits >= threshold[:, None]) | (top_k <= 0)[:, None], values, -jnp.inf)


def keep_top_p(values: Array, top_p: Array) -> Array:
    """`values [S, V]` (logits) with minus infinity outside the smallest set of the likeliest ids that has the
    mass `top_p`."""
    weights = jnp.exp(values - jnp.max(values, axis=-1, keepdims=True))
    bits = ordered_bits(values)
    threshold = _largest_threshold(bits, weights, top_p * jnp.sum(weights, axis=-1))
    return jnp.where((bits >= threshold[:, None]) | (top_p >= 1.0)[:, None], values, -jnp.inf)


def uniform(seed: Array, place: Array, index: Array) -> Array:
    """One number in [0, 1) for each row, `[S]` f32, from its own seed, place and token index."""

    def draw(row_seed: Array, row_place: Array, row_index: Array) -> Array:
        key = jax.random.key(0, impl="threefry2x32")
        for part in (row_seed, row_place, row_index):
            key = jax.random.fold_in(key, part)
        return jax.random.uniform(key, (), jnp.float32)

    return jax.vmap(draw)(seed, place, index)


def _first_above(weights: Array, target: Array) -> tuple[Array, Array]:
    """Index of the first entry at which the running sum of `weights [S, n]` exceeds `target [S]`, and the sum
    before it.

    It is never an entry of weight 0: if rounding passes the end, it is the last entry that has weight.
    """
    running = jnp.cumsum(weights, axis=-1)
    ids = lax.broadcasted_iota(jnp.int32, weights.shape, 1)
    last = jnp.max(jnp.where(weights > 0, ids, 0), axis=-1)
    passed = (running > target[:, None]) & (weights > 0)
    first = jnp.min(jnp.where(passed, ids, weights.shape[1]), axis=-1)
    index = jnp.minimum(first, last)
    before = jnp.take_along_axis(running - weights, index[:, None], axis=1)[:, 0]
    return index, before


def draw(values: Array, noise: Array) -> Array:
    """Sample an id from the softmax of `values [S, V]`, with one uniform number `noise [S]` for each row;
    `[S]` i32."""
    S, V = values.shape
    weights = jnp.exp(values - jnp.max(values, axis=-1, keepdims=True))
    blocks = jnp.pad(weights, ((0, 0), (0, -V % _LANES))).reshape(S, -1, _LANES)
    sums = jnp.sum(blocks, axis=-1)
    target = noise * jnp.sum(sums, axis=-1)
    block, before = _first_above(sums, target)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    place, _ = _first_above(inside, target - before)
    return jnp.minimum(block * _LANES + place, V - 1).astype(jnp.int32)


def _sample(values: Array, settings: SettingArrays, place: Array, made: Array, active: Array) -> Array:
    """A sampled id for every row. For rows with temperature 0 nobody reads it."""
    temperature, top_k, top_p = settings["temperature"], settings["top_k"], settings["top_p"]
    warmth = jnp.where(temperature > 0, temperature, 1.0)[:, None]
    scaled = (values - jnp.max(values, axis=-1, keepdims=True)) / warmth
    wanted = active & (temperature > 0)
    scaled = lax.cond(jnp.any(wanted & (top_k > 0)), lambda x: keep_top_k(x, top_k), lambda x: x, scaled)
    scaled = lax.cond(jnp.any(wanted & (top_p < 1)), lambda x: keep_top_p(x, top_p), lambda x: x, scaled)
    return draw(scaled, uniform(settings["seed"], place, made))


def choose(
    logits: Array,
    rules: TokenRules,
    settings: SettingArrays,
    place: Array,
    made: Array,
    active: Array,
    history: Array,
) -> Array:
    """The next id of each row, `[S]` i32.

    Args:
        logits: `[S, V]` f32.
        place: `[S]` i32, the row's place in its group.
        made: `[S]` i32, how many tokens the row has made.
        active: `[S]` bool; a costly part runs only if an active row needs it.
        history: `[S, T]` i32, the tokens that each row has made.
    """
    sampled, maxima = settings["temperature"] > 0, _maxima(logits)

    def mixed(values: Array, greedy: Array) -> Array:
        return jnp.where(sampled, _sample(values, settings, place, made, active), greedy)

    def general(logits: Array, maxima: Array) -> Array:
        allowed = changed_and_allowed(logits, rules, settings, made, active, history)
        greedy = argmax(allowed)
        chosen: Array = lax.cond(
            jnp.any(active & sampled), mixed, lambda values, greedy: greedy, allowed, greedy
        )
        return chosen

    def plain(logits: Array, maxima: Array) -> Array:
        # The same as `general` gives: a maximum has no rounding. It needs no copy of the logits.
        return _greedy(logits, maxima, rules, made, settings["min_new_tokens"])

    needed = active & (sampled | changes_logits(settings))
    result: Array = lax.cond(jnp.any(needed), general, plain, logits, maxima)
    return result


def changed_and_allowed(
    values: Array, rules: TokenRules, settings: SettingArrays, made: Array, active: Array, history: Array
) -> Array:
    """Logits or log probabilities `[S, V]` as the rows' settings change them, minus infinity where an id may
    not be chosen."""

    def changed(values: Array) -> Array:
        return forbid(change_logits(values, settings, history, made), rules, made, settings["min_new_tokens"])

    def unchanged(values: Array) -> Array:
        return forbid(values, rules, made, settings["min_new_tokens"])

    result: Array = lax.cond(jnp.any(active & changes_logits(settings)), changed, unchanged, values)
    return result


def likeliest(
    logits: Array, normal: Normaliser, settings: SettingArrays, active: Array
) -> tuple[Array, Array]:
    """The K = `MAX_TOP_LOGPROBS` likeliest ids of each row and their log probabilities, `[S, K]`; ties go to
    the smaller id. Zeros if no active row asks for them."""

    def find(logits: Array) -> tuple[Array, Array]:
        largest, ids = lax.top_k(logits, MAX_TOP_LOGPROBS)
        return ids, log_probabilities(largest, normal)

    def skip(logits: Array) -> tuple[Array, Array]:
        empty = (logits.shape[0], MAX_TOP_LOGPROBS)
        return jnp.zeros(empty, jnp.int32), jnp.zeros(empty, logits.dtype)

    result: tuple[Array, Array] = lax.cond(
        jnp.any(active & (settings["top_logprobs"] > 0)), find, skip, logits
    )
    return result
