"""The tokens of one sequence as they come, until `</s>`, the limit or a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chorus_server.engine.plans import Likeliest
from chorus_server.engine.requests import SequenceOutput

Detokenise = Callable[[Sequence[int]], str]


@dataclass(slots=True)
class SequenceBuilder:
    """One sequence under way.

    Attributes:
        stop: stop strings; only sequences that have some are detokenised.
        finish_reason: None while it goes on.
    """

    eos_id: int
    stop: tuple[str, ...]
    detokenise: Detokenise
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    score: float = 0.0
    finish_reason: str | None = None
    top: list[Likeliest] = field(default_factory=list)

    def extend(
        self,
        tokens: Sequence[int],
        log_probabilities: Sequence[float],
        done: bool,
        top: Sequence[Likeliest] = (),
    ) -> int:
        """Add the tokens of one dispatch; those after a stop string are dropped. Returns how many were kept,
        without `</s>`."""
        before = len(self.tokens)
        for token, log_probability in zip(tokens, log_probabilities, strict=True):
            self.score += log_probability
            if token == self.eos_id:
                self.finish_reason = "stop"
                break
            self.tokens.append(token)
            self.log_probabilities.append(log_probability)
            if self.stop and self._stopped():
                self.finish_reason = "stop_string"
                break
        self.top += top[: len(self.tokens) - before]
        if done and self.finish_reason is None:
            self.finish_reason = "length"
        return len(self.tokens) - before

    def output(self) -> SequenceOutput:
        """The finished sequence."""
        return SequenceOutput(
            tuple(self.tokens),
            tuple(self.log_probabilities),
            self.score,
            self.finish_reason or "length",
            tuple(self.top),
        )

    def _stopped(self) -> bool:
        # Detokenise everything each time: a piece's text depends on what comes before it, and outputs are
        # short.
        text = self.detokenise(self.tokens)
        return any(stop in text for stop in self.stop)
