"""What one request may ask for, from the ladder of compiled shapes."""

from __future__ import annotations

from server.engine.plans import Ladder


class Limits:
    """Answers from the ladder, with no state of its own."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self.max_input_tokens = ladder.max_input_tokens
        self.max_new_tokens = ladder.max_new_tokens
        self.max_slots = max(block.slots for block in ladder.blocks)
        self.max_target_tokens = max((tokens for _, tokens in ladder.score_buckets), default=0)

    def new_tokens(self, input_tokens: int, slots: int = 1) -> int:
        """The most new tokens after an input of this length, for a group of `slots`.

        0 when the group is too large.
        """
        length = self._bucket(input_tokens)
        fitting = [
            block.new_tokens
            for block in self._ladder.blocks
            if block.input_length >= length and block.slots >= slots
        ]
        return max(fitting, default=0)

    def group(self, input_tokens: int) -> int:
        """The most beams or samples at once after an input of this length."""
        length = self._bucket(input_tokens)
        return max((block.slots for block in self._ladder.blocks if block.input_length >= length), default=0)

    def _bucket(self, input_tokens: int) -> int:
        lengths = [length for _, length in self._ladder.input_buckets if length >= input_tokens]
        return min(lengths, default=input_tokens)
