"""What one request may ask for, given the ladder of compiled shapes. It is decided only here, and worded
here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from chorus_server.engine.plans import BlockShape, Ladder
from chorus_server.engine.sampling import UnfitSettingsError
from chorus_server.engine.target_trees import MOST_TREES, Targets, target_trees


class Limits:
    """Answers from the ladder. It has no state of its own."""

    def __init__(self, ladder: Ladder) -> None:
        self._lengths = sorted({length for _, length in ladder.input_buckets})
        self._shapes = sorted(set(ladder.blocks))
        self.max_input_tokens = ladder.max_input_tokens
        self.max_new_tokens = ladder.max_new_tokens
        self._tree_sizes = ladder.tree_sizes
        self.max_target_tokens = max(self._tree_sizes, default=0)

    def input_class(self, input_tokens: int) -> int | None:
        """The shortest input bucket length that holds the input; None if there is none."""
        place = bisect_left(self._lengths, input_tokens)
        return self._lengths[place] if place < len(self._lengths) else None

    def too_many_targets(self, targets: Targets) -> str | None:
        """What is wrong with targets that are too many and too long together; it follows their name. None if
        nothing is."""
        trees = len(target_trees(targets, self._tree_sizes))
        if trees <= MOST_TREES:
            return None
        return (
            f"have about {trees * self._tree_sizes[-1]} different beginnings together, the limit is "
            f"{MOST_TREES * self._tree_sizes[-1]}: send fewer or shorter ones"
        )

    def shapes(self, input_tokens: int, slots: int = 1, new_tokens: int = 1) -> list[BlockShape]:
        """Blocks in which a group of `slots` can make `new_tokens` tokens after an input of this length."""
        # A block takes rows from buckets that are no longer than it, so compare the input's class, not its
        # length.
        length = self.input_class(input_tokens) or input_tokens
        return [
            shape
            for shape in self._shapes
            if length <= shape.input_length and slots <= shape.slots and new_tokens <= shape.new_tokens
        ]

    def new_tokens(self, input_tokens: int, slots: int = 1) -> int:
        """The most new tokens after an input of this length, for a group of `slots`.

        0 if the group is too large.
        """
        return max((shape.new_tokens for shape in self.shapes(input_tokens, slots)), default=0)

    def group(self, input_tokens: int) -> int:
        """The most beams or samples at once after an input of this length."""
        return max((shape.slots for shape in self.shapes(input_tokens)), default=0)

    def new_tokens_for(self, settings: Mapping[str, Any], input_tokens: int, usual: int) -> tuple[int, int]:
        """How many new tokens these settings ask for after an input of this length, and the largest number
        possible.

        Args:
            usual: new tokens if `max_new_tokens` is not set and there is room.

        Raises:
            UnfitSettingsError: the settings do not fit.
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
            together = asked <= self.new_tokens(input_tokens)  # a single sequence would fit
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


def input_too_long(count: str, limit: int, parts: str = "") -> str:
    """The message about an input that is too long.

    Args:
        count: its number of tokens, or "more than" some number if nobody counted to the end.
        parts: what the tokens consist of.
    """
    return f"The input has {count} tokens{parts}, the limit is {limit}: shorten it or set truncate."


def target_too_long(count: str, limit: int, start: str = "") -> str:
    """The message about a label or another target that is too long; it follows the target's name.

    Args:
        count: as in `input_too_long`, including everything that is put around the text.
        start: what is put before the text, followed by `and`.
    """
    return f"has {count} tokens with {start}'</s>', the limit is {limit}"
