"""Logit bias, penalties and bans of repeated n-grams: they change logits before a token is chosen.

They see the tokens that the row itself has generated, never its input, because the input is the encoder's and
no part of the answer. In this order:

1. `logit_bias` is added.
2. `repetition_penalty` divides the positive logits of generated tokens and multiplies the others, once
   whatever their count (Keskar et al. 2019, "CTRL", section 4.1; Hugging Face's processor).
3. `frequency_penalty` times a token's count and once `presence_penalty` are subtracted (OpenAI's formula).
4. `no_repeat_ngram_size` n: a token that would complete an n-gram for the second time cannot be chosen.

A beam search changes its log probabilities in the same way, as Hugging Face does. Only the few logits that
change are read and written, so every other one, and every row without such settings, keeps its bits.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from chorus_server.engine.executor.state import NO_ID, SettingArrays
from chorus_server.engine.sampling import SETTINGS

_LONGEST_NGRAM = int(SETTINGS["no_repeat_ngram_size"].bounds["le"])


def changes_logits(settings: SettingArrays) -> Array:
    """`[S]` bool: rows whose settings change logits."""
    return _biased(settings) | _penalised(settings) | (settings["no_repeat_ngram_size"] > 0)


def _biased(settings: SettingArrays) -> Array:
    return settings["logit_bias_ids"][:, 0] != NO_ID


def _penalised(settings: SettingArrays) -> Array:
    return (
        (settings["repetition_penalty"] != 1.0)
        | (settings["frequency_penalty"] != 0.0)
        | (settings["presence_penalty"] != 0.0)
    )


def change_logits(values: Array, settings: SettingArrays, history: Array, made: Array) -> Array:
    """`values [S, V]` with every row's own settings applied.

    Args:
        history: `[S, T]` i32, each row's generated tokens; the first `made [S]` count.
    """
    rows = lax.broadcasted_iota(jnp.int32, (values.shape[0], 1), 0)
    biased = _at(values, rows, settings["logit_bias_ids"]) + settings["logit_bias_values"]
    values = values.at[rows, settings["logit_bias_ids"]].set(biased, mode="drop")
    place = lax.broadcasted_iota(jnp.int32, history.shape, 1)
    generated = place < made[:, None]
    penalised = jnp.where(generated & _penalised(settings)[:, None], history, NO_ID)
    # A token that stands in several places is written several times, with the same value.
    values = values.at[rows, penalised].set(
        _lowered(_at(values, rows, penalised), settings, history, generated), mode="drop"
    )
    banned = jnp.where(generated & _repeats(settings["no_repeat_ngram_size"], history, made), history, NO_ID)
    return values.at[rows, banned].set(-jnp.inf, mode="drop")


def _at(values: Array, rows: Array, ids: Array) -> Array:
    return values[rows, jnp.minimum(ids, values.shape[1] - 1)]


def _lowered(values: Array, settings: SettingArrays, history: Array, generated: Array) -> Array:
    """Penalised values `[S, T]` of the tokens in `history`."""
    repetition = settings["repetition_penalty"][:, None]
    values = jnp.where(values > 0, values / repetition, values * repetition)
    same = (history[:, :, None] == history[:, None, :]) & generated[:, None, :]
    counts = jnp.sum(same, axis=2, dtype=jnp.int32).astype(jnp.float32)
    return values - settings["frequency_penalty"][:, None] * counts - settings["presence_penalty"][:, None]


def _repeats(size: Array, history: Array, made: Array) -> Array:
    """`[S, T]` bool: the token in this place follows the same `size - 1` tokens as the next one will."""
    place = lax.broadcasted_iota(jnp.int32, history.shape, 1)
    follows = (size > 0)[:, None] & (place >= (size - 1)[:, None])
    for back in range(1, _LONGEST_NGRAM):
        last = jnp.take_along_axis(history, jnp.maximum(made - back, 0)[:, None], axis=1)
        before = jnp.pad(history, ((0, 0), (back, 0)))[:, : history.shape[1]]
        follows &= (before == last) | (back >= size)[:, None]
    return follows
