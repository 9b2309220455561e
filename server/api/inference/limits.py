"""What one request may ask for, from the ladder of compiled shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.engine.plans import Ladder
from server.engine.sampling import UnfitSettingsError


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

    def new_tokens_for(self, settings: Mapping[str, Any], input_tokens: int, usual: int) -> tuple[int, int]:
        """How many new tokens these settings mean after an input of this length, and the most it could be.

        Args:
            usual: new tokens where `max_new_tokens` is not set, if there is room.

        Raises:
            UnfitSettingsError: they do not fit.
        """
        n, beams = settings.get("n", 1), settings.get("num_beams", 1)
        slots, group = max(beams, n), ("n", "num_beams") if n >= beams else ("num_beams", "n")
        room = self.new_tokens(input_tokens, slots)
        if room == 0:
            raise UnfitSettingsError(
                f"{group[0]} is {slots}, and at most {self.group(input_tokens)} sequences run together after "
                f"an input of {input_tokens} tokens.",
                *group,
            )
        asked, floor = settings.get("max_new_tokens"), settings.get("min_new_tokens", 0)
        if asked is not None and asked > room:
            together = asked <= self.new_tokens(input_tokens)  # it would fit one sequence
            raise UnfitSettingsError(
                f"max_new_tokens is {asked}, the limit after an input of {input_tokens} tokens is {room}"
                f"{f' for {slots} sequences together' if together else ''}.",
                "max_new_tokens",
                *(group if together else ()),
            )
        new_tokens = asked if asked is not None else min(usual, room)
        if floor > new_tokens:
            raise UnfitSettingsError(
                f"min_new_tokens is {floor}, more than the {new_tokens} of max_new_tokens.",
                "min_new_tokens",
                "max_new_tokens",
            )
        return new_tokens, room

    def _bucket(self, input_tokens: int) -> int:
        lengths = [length for _, length in self._ladder.input_buckets if length >= input_tokens]
        return min(lengths, default=input_tokens)
