"""Chooses the compiled `(B, L)` of a batch. The choice depends only on the ladder and the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import Ladder


@dataclass(frozen=True, slots=True)
class BucketChooser:
    """Chooses encoder buckets."""

    ladder: Ladder
    config: EngineConfig

    def batch_sizes(self, length: int) -> list[int]:
        """Batch sizes compiled for L = `length` that fit the token budget, ascending. The smallest is always
        included."""
        sizes = sorted(B for B, L in self.ladder.input_buckets if length == L)
        within = [B for B in sizes if B * length <= self.config.prefill_token_budget]
        return within or sizes[:1]

    def most_rows(self, length: int) -> int:
        """The most rows of one prefill step of L = `length`."""
        return self.batch_sizes(length)[-1]

    def joins(self, length: int, input_class: int, bucket_length: int) -> bool:
        """Whether an input of `length` may join a prefill step of L = `bucket_length`."""
        if self.config.batch_invariant or input_class == bucket_length:
            return input_class == bucket_length
        return length <= bucket_length and length >= (1 - self.config.max_padding_waste) * bucket_length

    def choose(self, classes: list[int], bucket_length: int) -> tuple[int, int]:
        """(B, rows): how many candidates of these input classes run now, in the queue's order, and with which
        B.

        All of them run if the padding stays within bounds, else as many as fill the next smaller batch size.
        Padding up to a row's own class does not count as waste, because it cannot be avoided.
        """
        sizes, rows = self.batch_sizes(bucket_length), len(classes)
        if self.config.batch_invariant:
            return sizes[-1], min(rows, sizes[-1])
        roomy = next((B for B in sizes if rows <= B), None)
        full = max((B for B in sizes if rows >= B), default=None)
        if roomy is None:
            return sizes[-1], sizes[-1]
        waste = 1 - sum(classes) / (roomy * bucket_length)
        if full is None or waste <= self.config.max_padding_waste:
            return roomy, rows
        return full, full
