"""Chooses the compiled `(B, L)` of a batch. The choice depends only on the ladder and the configuration."""

from __future__ import annotations

from collections.abc import Sequence
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

    def fixed_axis(self, length: int, bucket_length: int) -> tuple[int, int]:
        """(T, B) of the one shape for inputs of fixed shape of `length`, in their own class. Its axis always
        has room for B rows that are no longer than those it is for; `batch_invariant` has one for all."""
        B = self.most_rows(bucket_length)
        counts = self.ladder.token_counts((B, bucket_length))
        if self.config.batch_invariant:
            return counts[-1], B
        return next(T for T in counts if B * length <= T), B

    def choose(self, lengths: Sequence[int], bucket_length: int, *, fixed: bool, short: bool = False) -> int:
        """How many of these candidates, at least one, run now, in the queue's order: the most of whom each
        takes hardly more of the axis than in the step that is best filled. So of eight rows of 40 tokens six
        run, with an axis of 256 tokens in place of 512.

        Args:
            lengths: of the candidates.
            fixed: whether the step has one shape whatever is in it.
            short: whether they must fit the shortest axis of the largest batch.
        """
        most = min(len(lengths), self.most_rows(bucket_length))
        if fixed:
            return most
        axes = [self.axis(lengths[:count], bucket_length, fixed=False)[0] for count in range(1, most + 1)]
        if short:
            longest = self.ladder.token_counts((self.most_rows(bucket_length), bucket_length))[0]
            axes = [T for T in axes if longest >= T] or axes[:1]
        row_tokens = [T / count for count, T in enumerate(axes, 1)]
        most_tokens = min(row_tokens) / (1 - self.config.max_padding_waste) + 1e-9
        return max(count for count, tokens in enumerate(row_tokens, 1) if tokens <= most_tokens)

    def axis(self, lengths: Sequence[int], bucket_length: int, *, fixed: bool) -> tuple[int, int]:
        """(T, B): the smallest token axis for rows of these lengths, and its B; the one of their shape if
        that is `fixed`."""
        if fixed:
            return self.fixed_axis(lengths[0], bucket_length)
        sizes = self.batch_sizes(bucket_length)
        axes = sorted((T, B) for B in sizes for T in self.ladder.token_counts((B, bucket_length)))
        return next((T, B) for T, B in axes if len(lengths) <= B and sum(lengths) <= T)
