"""Encoder and decoder: what one layer does, folded over a stack in either layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from chorus_server.model.attention import Attention, WeightDropout, step_attention
from chorus_server.model.config import T5Config
from chorus_server.model.dropout import Dropout, LayerDropout, channels
from chorus_server.model.layers import FeedForward, Projections, parameter, project, rms_norm
from chorus_server.model.layout import Layout, PyTree, fold, make_layers
from chorus_server.model.relative import causal_bias, encoder_bias, step_bias
from chorus_server.model.tokens import TokenRows
from chorus_server.model.trees import Trees

# Places of a stack's own dropout. Those of a layer are in the order of `_draw`: INNER of the feed-forward,
# then the output of each block.
INPUT, OUTPUT = 0, 1


class EncoderLayer(nnx.Module):
    """Self-attention, then feed-forward. Each follows a norm and has a residual beside it."""

    def __init__(self, config: T5Config, dtype: jnp.dtype) -> None:
        self.epsilon = config.norm_epsilon
        self.attention_norm = parameter(dtype, config.d_model)
        self.attention = Projections(config, dtype)
        self.feed_forward_norm = parameter(dtype, config.d_model)
        self.feed_forward = FeedForward(config, dtype)

    def __call__(
        self, x: Float[Array, "B L D"], real: Bool[Array, "B L"], bias: Float32[Array, "1 H L L"],
        attend: Attention, drop: LayerDropout | None,
    ) -> Float[Array, "B L D"]:  # fmt: skip
        """The layer's output; positions that are not real stay 0."""

        def attended(h: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            block = self.attention
            query, key, value = (block.split(h, weight) for weight in (block.query, block.key, block.value))
            return block.join(attend(query, key, value, real[:, None, None, :], bias, _weights(drop, 0)))

        return self._around(x, real, attended, drop)

    def tokens(
        self, x: Float[Array, "T D"], rows: TokenRows, bias: Float32[Array, "1 H L L"], attend: Attention,
        drop: LayerDropout | None,
    ) -> Float[Array, "T D"]:  # fmt: skip
        """The layer's output for rows on the token axis; what belongs to no row stays 0."""

        def attended(h: Float[Array, "T D"]) -> Float[Array, "T D"]:
            block = self.attention
            query, key, value = (
                block.split_tokens(h, weight, rows) for weight in (block.query, block.key, block.value)
            )
            visible = rows.visible[:, None, None, :]
            return block.join_tokens(attend(query, key, value, visible, bias, _weights(drop, 0)), rows)

        return self._around(x, rows.real, attended, None if drop is None else drop.by_token(rows.row))

    def _around(
        self, x: Float[Array, "*places D"], real: Bool[Array, "*places"],
        attended: Callable[[Float[Array, "*places D"]], Float[Array, "*places D"]], drop: LayerDropout | None,
    ) -> Float[Array, "*places D"]:  # fmt: skip
        h = rms_norm(x, self.attention_norm, self.epsilon)
        context = channels(drop, 1, attended(h))
        # Everything else turns 0 into 0, so this one select keeps padding at 0 through the whole stack,
        # whatever the row holds. Inside the residual add it costs nothing.
        x = x + jnp.where(real[..., None], context, 0)
        h = rms_norm(x, self.feed_forward_norm, self.epsilon)
        return x + channels(drop, 2, self.feed_forward(h, drop))


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the encoder memory, feed-forward."""

    def __init__(self, config: T5Config, dtype: jnp.dtype) -> None:
        self.epsilon = config.norm_epsilon
        self.self_attention_norm = parameter(dtype, config.d_model)
        self.self_attention = Projections(config, dtype)
        self.cross_attention_norm = parameter(dtype, config.d_model)
        self.cross_attention = Projections(config, dtype)
        self.feed_forward_norm = parameter(dtype, config.d_model)
        self.feed_forward = FeedForward(config, dtype)

    def memory(self, encoded: Float[Array, "B L D"]) -> dict[str, Float[Array, "B H L K"]]:
        """Cross-attention key and value; 0 where encoded is 0."""
        block = self.cross_attention
        return {"key": block.split(encoded, block.key), "value": block.split(encoded, block.value)}

    def token_memory(self, encoded: Float[Array, "T D"]) -> dict[str, Float[Array, "T HK"]]:
        """The same by token, each head's part beside the others."""
        block = self.cross_attention
        return {"key": project(encoded, block.key), "value": project(encoded, block.value)}

    def block_memory(
        self, encoded: Float[Array, "T D"], rows: TokenRows
    ) -> dict[str, Float[Array, "R H L K"]]:
        """`memory` of rows on the token axis."""
        heads = self.cross_attention.heads
        return {name: rows.blocks(leaf, heads) for name, leaf in self.token_memory(encoded).items()}

    def step(
        self,
        x: Float[Array, "S D"],
        cache: dict[str, Float[Array, "S H T K"]],
        memory: dict[str, Float[Array, "M H L K"]],
        memory_visible: Bool[Array, "S L"],
        positions: Int[Array, "S"],
        bias: Float32[Array, "S H T"],
        memory_index: Int[Array, "S"] | None,
    ) -> tuple[Float[Array, "S D"], dict[str, Float[Array, "S H T K"]]]:
        """One token for each slot: the layer's output, and the cache with this token's key and value
        added."""
        own = self.self_attention
        h = rms_norm(x, self.self_attention_norm, self.epsilon)
        slots = jnp.arange(x.shape[0])
        key = cache["key"].at[slots, :, positions].set(own.split_step(h, own.key), mode="drop")
        value = cache["value"].at[slots, :, positions].set(own.split_step(h, own.value), mode="drop")
        past = jnp.arange(key.shape[2])[None, :] <= positions[:, None]
        # A reused slot may hold anything beyond its position, including NaN.
        clean = jnp.where(past[:, None, :, None], value, 0)
        x = x + own.join_step(
            step_attention(own.split_step(h, own.query), key, clean, past[:, None, :], bias)
        )

        cross = self.cross_attention
        h = rms_norm(x, self.cross_attention_norm, self.epsilon)
        if memory_index is not None:
            memory = {name: leaf[memory_index] for name, leaf in memory.items()}
        context = step_attention(
            cross.split_step(h, cross.query), memory["key"], memory["value"], memory_visible[:, None, :], None
        )
        x = x + cross.join_step(context)
        x = x + self.feed_forward(rms_norm(x, self.feed_forward_norm, self.epsilon))
        return x, {"key": key, "value": value}

    def targets(
        self, x: Float[Array, "B C T D"], memory: dict[str, Float[Array, "B H L K"]],
        memory_visible: Bool[Array, "B L"], visible: Bool[Array, "#BC 1 T T"],
        bias: Float32[Array, "#BC H T T"], attend: Attention, drop: LayerDropout | None,
    ) -> Float[Array, "B C T D"]:  # fmt: skip
        """Teacher forcing. All C * T queries of an input read its one memory."""
        B, C, T, D = x.shape
        own = self.self_attention
        flat = x.reshape(B * C, T, D)
        h = rms_norm(flat, self.self_attention_norm, self.epsilon)
        query, key, value = (own.split(h, weight) for weight in (own.query, own.key, own.value))
        context = own.join(attend(query, key, value, visible, bias, _weights(drop, 0)))
        flat = flat + channels(drop, 1, context)

        wide = self._read(flat.reshape(B, C * T, D), memory, memory_visible, attend, drop)
        return wide.reshape(B, C, T, D)

    def nodes(
        self, x: Float[Array, "1 N D"], memory: dict[str, Float[Array, "1 H L K"]],
        memory_visible: Bool[Array, "1 L"], seen: Sequence[tuple[Array, Array]], attend: Attention,
    ) -> Float[Array, "1 N D"]:  # fmt: skip
        """Nodes of one input's trees, end to end; `seen` has what trees of each size see of themselves, and
        their bias."""
        own = self.self_attention
        h = rms_norm(x, self.self_attention_norm, self.epsilon)
        all_three = [project(h, weight)[0] for weight in (own.query, own.key, own.value)]
        contexts, start = [], 0
        for visible, bias in seen:
            C, _, J, _ = visible.shape
            some = slice(start, start := start + C * J)
            query, key, value = (
                each[some].reshape(C, J, own.heads, -1).transpose(0, 2, 1, 3) for each in all_three
            )
            context = attend(query, key, value, visible, bias)
            contexts.append(context.transpose(0, 2, 1, 3).reshape(C * J, -1))
        x = x + project(jnp.concatenate(contexts)[None], own.output)
        return self._read(x, memory, memory_visible, attend, None)

    def _read(
        self, wide: Float[Array, "B Q D"], memory: dict[str, Float[Array, "B H L K"]],
        memory_visible: Bool[Array, "B L"], attend: Attention, drop: LayerDropout | None,
    ) -> Float[Array, "B Q D"]:  # fmt: skip
        """Attention to the encoder memory, and feed-forward."""
        cross = self.cross_attention
        h = rms_norm(wide, self.cross_attention_norm, self.epsilon)
        context = attend(
            cross.split(h, cross.query),
            memory["key"],
            memory["value"],
            memory_visible[:, None, None, :],
            None,
            _weights(drop, 1),
        )
        wide = wide + channels(drop, 2, cross.join(context))
        h = rms_norm(wide, self.feed_forward_norm, self.epsilon)
        return wide + channels(drop, 3, self.feed_forward(h, drop))


class Encoder(nnx.Module):
    """A stack of encoder layers with their shared position table and final norm."""

    def __init__(self, config: T5Config, layout: Layout, dtype: jnp.dtype) -> None:
        self.config = config
        self.layout = layout
        self.relative_bias = parameter(dtype, config.relative_buckets, config.num_heads)
        self.layers = make_layers(layout, config.num_encoder_layers, lambda: EncoderLayer(config, dtype))
        self.final_norm = parameter(dtype, config.d_model)

    def __call__(
        self, x: Float[Array, "B L D"], real: Bool[Array, "B L"], attend: Attention,
        dropout: Dropout | None = None,
    ) -> Float[Array, "B L D"]:  # fmt: skip
        """x is 0 where not real, and so is the output."""
        bias = encoder_bias(self.relative_bias[...], x.shape[1], self.config)[None]

        def body(
            layer: EncoderLayer, carry: Float[Array, "B L D"], drop: LayerDropout | None
        ) -> tuple[Float[Array, "B L D"], None]:
            return layer(carry, real, bias, attend, drop), None

        ends, inner = self._draw(dropout, x.shape[1])
        x, _ = fold(self.layers, body, channels(ends, INPUT, x), inner)
        return channels(ends, OUTPUT, rms_norm(x, self.final_norm, self.config.norm_epsilon))

    def tokens(
        self, x: Float[Array, "T D"], rows: TokenRows, attend: Attention, dropout: Dropout | None = None
    ) -> Float[Array, "T D"]:
        """The same for rows on the token axis."""
        bias = encoder_bias(self.relative_bias[...], rows.visible.shape[1], self.config)[None]

        def body(
            layer: EncoderLayer, carry: Float[Array, "T D"], drop: LayerDropout | None
        ) -> tuple[Float[Array, "T D"], None]:
            return layer.tokens(carry, rows, bias, attend, drop), None

        ends, inner = self._draw(dropout, rows.visible.shape[1])
        ends = None if ends is None else ends.by_token(rows.row)
        x, _ = fold(self.layers, body, channels(ends, INPUT, x), inner)
        return channels(ends, OUTPUT, rms_norm(x, self.final_norm, self.config.norm_epsilon))

    def _draw(self, dropout: Dropout | None, L: int) -> tuple[LayerDropout | None, PyTree]:
        if dropout is None:
            return None, None
        config = self.config
        places = (config.d_ff, *(config.d_model,) * 2)
        return dropout.draw(
            self.layout, config.num_encoder_layers, config.d_model, places, (L,), config.num_heads
        )


class Decoder(nnx.Module):
    """A stack of decoder layers with their shared position table and final norm."""

    def __init__(self, config: T5Config, layout: Layout, dtype: jnp.dtype) -> None:
        self.config = config
        self.layout = layout
        self.relative_bias = parameter(dtype, config.relative_buckets, config.num_heads)
        self.layers = make_layers(layout, config.num_decoder_layers, lambda: DecoderLayer(config, dtype))
        self.final_norm = parameter(dtype, config.d_model)

    def memory(self, encoded: Float[Array, "B L D"]) -> PyTree:
        """Keys and values [B, H, L, K] for each layer."""

        def body(layer: DecoderLayer, carry: None, _: None) -> tuple[None, PyTree]:
            return carry, layer.memory(encoded)

        return fold(self.layers, body, None)[1]

    def token_memory(self, encoded: Float[Array, "T D"]) -> PyTree:
        """Keys and values [T, H*K] for each layer."""

        def body(layer: DecoderLayer, carry: None, _: None) -> tuple[None, PyTree]:
            return carry, layer.token_memory(encoded)

        return fold(self.layers, body, None)[1]

    def step(
        self, x: Float[Array, "S D"], cache: PyTree, memory: PyTree, memory_visible: Bool[Array, "S L"],
        positions: Int[Array, "S"], new_tokens: int, memory_index: Int[Array, "S"] | None,
    ) -> tuple[Float[Array, "S D"], PyTree]:  # fmt: skip
        """The stack's output after the final norm, and the cache one token longer."""
        bias = step_bias(self.relative_bias[...], positions, new_tokens, self.config)

        def body(
            layer: DecoderLayer, carry: Float[Array, "S D"], own: tuple[PyTree, PyTree]
        ) -> tuple[Float[Array, "S D"], PyTree]:
            return layer.step(carry, own[0], own[1], memory_visible, positions, bias, memory_index)

        x, cache = fold(self.layers, body, x, _zip_layers(cache, memory))
        return rms_norm(x, self.final_norm, self.config.norm_epsilon), cache

    def targets(
        self, x: Float[Array, "B C T D"], encoded: Float[Array, "B L D"], memory_visible: Bool[Array, "B L"],
        attend: Attention, dropout: Dropout | None = None,
    ) -> Float[Array, "B C T D"]:  # fmt: skip
        """The stack's output after the final norm, for each target."""
        return self._targets_and_memory(
            x, lambda layer: layer.memory(encoded), memory_visible, attend, dropout
        )

    def targets_of_tokens(
        self, x: Float[Array, "R C T D"], encoded: Float[Array, "tokens D"], rows: TokenRows,
        attend: Attention, dropout: Dropout | None = None,
    ) -> Float[Array, "R C T D"]:  # fmt: skip
        """The same for inputs on the token axis."""
        return self._targets_and_memory(
            x, lambda layer: layer.block_memory(encoded, rows), rows.visible, attend, dropout
        )

    def _targets_and_memory(
        self, x: Float[Array, "B C T D"], memory: Callable[[DecoderLayer], PyTree],
        memory_visible: Bool[Array, "B L"], attend: Attention, dropout: Dropout | None,
    ) -> Float[Array, "B C T D"]:  # fmt: skip
        ends, inner = self._draw(dropout, x.shape[2], memory_visible.shape[1])
        x = channels(ends, INPUT, x)
        T = x.shape[2]
        causal = jnp.tril(jnp.ones((T, T), bool))[None, None]
        bias = causal_bias(self.relative_bias[...], T, self.config)[None]

        def own(layer: DecoderLayer, drop: LayerDropout | None) -> tuple[PyTree, LayerDropout | None]:
            return memory(layer), drop

        x = self._targets(x, own, inner, memory_visible, causal, bias, attend)
        return channels(ends, OUTPUT, x)

    def trees(
        self, x: Float[Array, "B J D"], trees: Trees, memory: PyTree, memory_visible: Bool[Array, "B L"],
        attend: Attention,
    ) -> Float[Array, "B J D"]:  # fmt: skip
        """The stack's output after the final norm at each node of trees, from encoder memory."""
        visible, bias = trees.visible(), trees.bias(self.relative_bias[...], self.config)

        def own(layer: DecoderLayer, read: PyTree) -> tuple[PyTree, None]:
            return read, None

        return self._targets(x[:, None], own, memory, memory_visible, visible, bias, attend)[:, 0]

    def trees_of_one(
        self, x: Float[Array, "1 N D"], trees: Sequence[Trees], memory: PyTree,
        memory_visible: Bool[Array, "1 L"], attend: Attention,
    ) -> Float[Array, "1 N D"]:  # fmt: skip
        """`trees` for trees of several sizes of one input, whose N nodes lie end to end."""
        table, config = self.relative_bias[...], self.config
        seen = [(each.visible(), each.bias(table, config)) for each in trees]

        def body(
            layer: DecoderLayer, carry: Float[Array, "1 N D"], read: PyTree
        ) -> tuple[Float[Array, "1 N D"], None]:
            return layer.nodes(carry, read, memory_visible, seen, attend), None

        x, _ = fold(self.layers, body, x, memory)
        return rms_norm(x, self.final_norm, self.config.norm_epsilon)

    def _targets(
        self, x: Float[Array, "B C T D"],
        memory: Callable[[DecoderLayer, PyTree], tuple[PyTree, LayerDropout | None]], inputs: PyTree,
        memory_visible: Bool[Array, "B L"], visible: Bool[Array, "#BC 1 T T"],
        bias: Float32[Array, "#BC H T T"], attend: Attention,
    ) -> Float[Array, "B C T D"]:  # fmt: skip
        """`memory` gives a layer's memory and dropout from the layer's own inputs."""

        def body(
            layer: DecoderLayer, carry: Float[Array, "B C T D"], own: PyTree
        ) -> tuple[Float[Array, "B C T D"], None]:
            read, drop = memory(layer, own)
            return layer.targets(carry, read, memory_visible, visible, bias, attend, drop), None

        x, _ = fold(self.layers, body, x, inputs)
        return rms_norm(x, self.final_norm, self.config.norm_epsilon)

    def _draw(self, dropout: Dropout | None, T: int, L: int) -> tuple[LayerDropout | None, PyTree]:
        if dropout is None:
            return None, None
        config = self.config
        places = (config.d_ff, *(config.d_model,) * 3)
        return dropout.draw(
            self.layout, config.num_decoder_layers, config.d_model, places, (T, L), config.num_heads
        )


def _weights(drop: LayerDropout | None, place: int) -> WeightDropout | None:
    return None if drop is None else partial(drop.attended, place)


def _zip_layers(cache: PyTree, memory: PyTree) -> PyTree:
    return tuple(zip(cache, memory, strict=True)) if isinstance(cache, tuple) else (cache, memory)
