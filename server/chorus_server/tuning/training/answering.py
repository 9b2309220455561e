"""Answers of prompts on the device, for evaluation: scores of labels, or greedy text. Pure functions.

A batch may mix the job's prompts: ids say which prompt a row has.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32

from chorus_server.model.functions import Functions
from chorus_server.model.layout import PyTree

_Decoding = tuple[Int32[Array, ""], PyTree, Int32[Array, "B"], Int32[Array, "B new_tokens"], Bool[Array, "B"]]
"""Position, cache, each row's last token, all of them, and whether it has ended."""


def label_scores(
    functions: Functions,
    params: PyTree,
    prompts: Float32[Array, "N P D"],
    ids: Int[Array, "B L"],
    lengths: Int[Array, "B"],
    labels: Int[Array, "B C T"],
    label_lengths: Int[Array, "B C"],
) -> Float32[Array, "B C"]:
    """Summed log probability of each label (0 for a label of length 0, which the caller leaves out)."""
    table = prompts.reshape(-1, prompts.shape[-1])
    encoded = functions.encode(params, table, ids, lengths)
    return functions.target_log_probabilities(params, encoded, lengths, labels, label_lengths)


def greedy_answers(
    functions: Functions,
    new_tokens: int,
    params: PyTree,
    prompts: Float32[Array, "N P D"],
    ids: Int[Array, "B L"],
    lengths: Int[Array, "B"],
) -> Int32[Array, "B {new_tokens}"]:
    """Tokens of each row; what follows `</s>` means nothing.

    Ends early when every row has ended.
    """
    config, B = functions.config, ids.shape[0]
    table = prompts.reshape(-1, prompts.shape[-1])
    memory = functions.encoder_memory(params, functions.encode(params, table, ids, lengths), lengths)

    def unfinished(state: _Decoding) -> Bool[Array, ""]:
        position, _, _, _, ended = state
        return (position < new_tokens) & ~ended.all()

    def step(state: _Decoding) -> _Decoding:
        position, cache, last, said, ended = state
        positions = jnp.full((B,), position, jnp.int32)
        logits, cache = functions.decode_step(params, cache, memory, lengths, last, positions)
        chosen = logits.argmax(axis=1).astype(jnp.int32)
        said = jax.lax.dynamic_update_index_in_dim(said, chosen, position, 1)
        return position + 1, cache, chosen, said, ended | (chosen == config.eos_id)

    start = jnp.full((B,), config.decoder_start_id, jnp.int32)
    said = jnp.full((B, new_tokens), config.eos_id, jnp.int32)
    # Rows of padding have length 0, and have ended before they begin.
    state = (jnp.int32(0), functions.init_cache(B, new_tokens), start, said, lengths == 0)
    tokens: Array = jax.lax.while_loop(unfinished, step, state)[3]
    return tokens
