"""Greedy decoding of a whole batch in one compiled loop. It is for parity checks and measurements, not for
serving."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from chorus_server.model.functions import Functions
from chorus_server.model.layout import PyTree
from chorus_server.model.t5 import AnyArray, Model


def greedy_tokens(
    model: Model, encoded: Float[AnyArray, "B L D"], lengths: Int[AnyArray, "B"], new_tokens: int
) -> list[list[int]]:
    """At most `new_tokens` tokens for each row. A row ends with `</s>`, which is kept."""
    eos = model.config.eos_id
    rows = np.asarray(_decode(model.functions, new_tokens, model.params, encoded, lengths)).tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


@partial(jax.jit, static_argnums=(0, 1))
def _decode(
    functions: Functions,
    new_tokens: int,
    params: PyTree,
    encoded: Float[Array, "B L D"],
    lengths: Int[Array, "B"],
) -> Int32[Array, "B {new_tokens}"]:
    """Values after `</s>` have no meaning."""
    B = encoded.shape[0]
    memory = functions.encoder_memory(params, encoded, lengths)

    def step(
        carry: tuple[PyTree, Int32[Array, "B"]], position: Int[Array, ""]
    ) -> tuple[tuple[PyTree, Int32[Array, "B"]], Int32[Array, "B"]]:
        cache, tokens = carry
        positions = jnp.full((B,), position, jnp.int32)
        logits, cache = functions.decode_step(params, cache, memory, lengths, tokens, positions)
        chosen = logits.argmax(axis=1).astype(jnp.int32)
        return (cache, chosen), chosen

    start = jnp.full((B,), functions.config.decoder_start_id, jnp.int32)
    carry = (functions.init_cache(B, new_tokens), start)
    return jax.lax.scan(step, carry, jnp.arange(new_tokens))[1].T
