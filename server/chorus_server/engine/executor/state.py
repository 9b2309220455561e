"""The device state of one block: what each slot carries from step to step. It is donated and updated in
place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from chorus_server.engine.plans import BlockShape
from chorus_server.engine.sampling import DEVICE_DTYPES, LENGTH_PENALTY_RULES, MAX_LOGIT_BIASES, SETTINGS
from chorus_server.model.trees import Trees

MAX_BEAMS = int(SETTINGS["num_beams"].bounds["le"])
MAX_TOP_LOGPROBS = int(SETTINGS["top_logprobs"].bounds["le"])

NO_ID = 2**31 - 1
"""Marks an unused place among ids: a scatter drops it."""

SettingArrays = Mapping[str, Array]
"""Each row's settings by the names of `engine.sampling.Sampling`; `[S]`, with the types in `DEVICE_DTYPES`.
The logit bias is `logit_bias_ids` and `logit_bias_values`, both `[S, 64]`."""


class ModelFunctions(Protocol):
    """What the executor needs from a model: pure functions over `params`. `chorus_server.model` has them."""

    @property
    def slot_axis(self) -> int: ...

    @property
    def memory_length_axis(self) -> int: ...

    def encode_tokens(
        self, params: Any, prompt_rows: Array, ids: Array, starts: Array, lengths: Array, longest: int
    ) -> Array: ...

    def token_memory(self, params: Any, encoded: Array) -> Any: ...

    def init_tokens(self, count: int) -> Any: ...

    def row_memory(self, tokens: Any, starts: Array, lengths: Array, length: int) -> Any: ...

    def init_memory(self, slots: int, length: int) -> Any: ...

    def init_cache(self, slots: int, new_tokens: int) -> Any: ...

    def decode_step(
        self,
        params: Any,
        cache: Any,
        memory: Any,
        memory_lengths: Array,
        tokens: Array,
        positions: Array,
        memory_index: Array | None = None,
    ) -> tuple[Array, Any]: ...

    def tree_log_probabilities(self, params: Any, memory: Any, lengths: Array, trees: Trees) -> Array: ...

    def log_probabilities_of_one(
        self, params: Any, memory: Any, lengths: Array, trees: Sequence[Trees]
    ) -> tuple[Array, ...]: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class SlotState:
    """The state of the slots; all arrays are `[S]` but for two of the settings. An admission writes them
    whole. `active`, `tokens` and `positions` advance with each decode step.

    Attributes:
        active: bool; whether the slot makes tokens.
        tokens: i32, the last token, which is the next decoder input.
        positions: i32, tokens made so far, which is the position of the next decoder input.
        leader: i32, slot of the group's leader, whose encoder memory the group reads.
        place: i32, place in the group.
        settings: the request's sampling settings; see `SettingArrays`.
    """

    active: Array
    tokens: Array
    positions: Array
    leader: Array
    place: Array
    settings: dict[str, Array]

    @property
    def width(self) -> Array:
        """Number of beams of the group; 1 for a slot that is not a beam."""
        return self.settings["num_beams"]

    @property
    def alpha(self) -> Array:
        """Length penalty of a beam search."""
        return self.settings["length_penalty"]

    @property
    def as_huggingface(self) -> Array:
        """Whether a beam search has Hugging Face's rules."""
        return self.settings["length_penalty_rule"] == LENGTH_PENALTY_RULES.index("huggingface")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class BeamState:
    """Beam searches of a block, W = 10 being the widest, and the tokens that every slot has made. A search's
    finished set is in its leader's row, best first.

    A token's log probability is that of the unmodified distribution. A *path* is the slot whose logits a
    token was chosen from, because a beam moves from slot to slot.

    Attributes:
        members: `[S, W]` i32; in a leader's row the slots of its group in order, and the leader in the other
            places.
        live_scores: `[S]` f32, log probability of the slot's live beam; minus infinity for a beam that has
            not begun.
        live_tokens: `[S, T]` i32, the slot's tokens, whether it is a beam or not.
        live_log_probs, live_paths: `[S, T]` f32 and i32, of a live beam's tokens.
        scores: `[S, W]` f32, penalised scores of finished hypotheses; minus infinity if there is none.
        lengths: `[S, W]` i32, number of tokens of each, without `</s>`.
        ended: `[S, W]` bool, whether it ended in `</s>`.
        sequences: `[S, W, T]` i32.
        log_probs, paths: `[S, W, T]` f32 and i32, of the tokens in `sequences`.
        top_ids, top_log_probs: `[S, T, K]` i32 and f32, what was likeliest in each slot at each place, if a
            search asked for it.
    """

    members: Array
    live_scores: Array
    live_tokens: Array
    live_log_probs: Array
    live_paths: Array
    scores: Array
    lengths: Array
    ended: Array
    sequences: Array
    log_probs: Array
    paths: Array
    top_ids: Array
    top_log_probs: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class BlockState:
    """The whole state of one block: encoder memory, its lengths `[S]` i32, self-attention cache, slots and
    beams."""

    memory: Any
    memory_lengths: Array
    cache: Any
    slots: SlotState
    beams: BeamState


def _zeros(shape: Sequence[int], dtype: Any) -> Any:
    return np.zeros(tuple(shape), dtype)


def initial_slots(S: int, settings: Any = None) -> SlotState:
    """Inactive slots, as host arrays.

    Args:
        settings: becomes `SlotState.settings`; by default a request's defaults.
    """
    if settings is None:
        settings = {
            name: np.full((S,), SETTINGS[name].number(SETTINGS[name].default), each)
            for name, each in DEVICE_DTYPES.items()
        } | no_logit_bias(S)
    return SlotState(
        active=_zeros((S,), np.bool_),
        tokens=_zeros((S,), np.int32),
        positions=_zeros((S,), np.int32),
        leader=np.arange(S, dtype=np.int32),  # type: ignore[arg-type]
        place=_zeros((S,), np.int32),
        settings=settings,
    )


def no_logit_bias(S: int) -> dict[str, Any]:
    """The two arrays of `SettingArrays` for slots without a bias."""
    return {
        "logit_bias_ids": np.full((S, MAX_LOGIT_BIASES), NO_ID, np.int32),
        "logit_bias_values": _zeros((S, MAX_LOGIT_BIASES), np.float32),
    }


def initial_beams(S: int, T: int) -> BeamState:
    """A state without searches, as host arrays."""
    return BeamState(
        members=np.repeat(np.arange(S, dtype=np.int32)[:, None], MAX_BEAMS, axis=1),  # type: ignore[arg-type]
        live_scores=_zeros((S,), np.float32),
        live_tokens=_zeros((S, T), np.int32),
        live_log_probs=_zeros((S, T), np.float32),
        live_paths=_zeros((S, T), np.int32),
        scores=np.full((S, MAX_BEAMS), -np.inf, np.float32),  # type: ignore[arg-type]
        lengths=_zeros((S, MAX_BEAMS), np.int32),
        ended=_zeros((S, MAX_BEAMS), np.bool_),
        sequences=_zeros((S, MAX_BEAMS, T), np.int32),
        log_probs=_zeros((S, MAX_BEAMS, T), np.float32),
        paths=_zeros((S, MAX_BEAMS, T), np.int32),
        top_ids=_zeros((S, T, MAX_TOP_LOGPROBS), np.int32),
        top_log_probs=_zeros((S, T, MAX_TOP_LOGPROBS), np.float32),
    )


def initial_state(functions: ModelFunctions, shape: BlockShape) -> BlockState:
    """An empty block. It is traced, so that it is made on the device."""
    slots, beams = initial_slots(shape.slots), initial_beams(shape.slots, shape.new_tokens)
    return BlockState(
        memory=functions.init_memory(shape.slots, shape.input_length),
        memory_lengths=jnp.zeros((shape.slots,), jnp.int32),
        cache=functions.init_cache(shape.slots, shape.new_tokens),
        slots=jax.tree.map(jnp.asarray, slots),
        beams=jax.tree.map(jnp.asarray, beams),
    )
