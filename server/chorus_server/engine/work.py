"""The work unit: what an item costs. Limits, usage and bills speak in it, and it is counted only here.

It depends on the request and on what was produced. Padding, neighbours and the machine never change it; the
fair queue prices padded work for itself (`fitting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from chorus_server.engine.requests import (
    FailedEvent,
    FinishedEvent,
    Origin,
    PromptHandle,
    Request,
    RequestKind,
    RequestOutcome,
    ScoreRequest,
    Timings,
)
from chorus_server.errors import CancelledError


class Produced(Protocol):
    """One sequence, finished or under way."""

    @property
    def tokens(self) -> Sequence[int]:
        """Without `</s>`."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of one request, for whoever counts usage.

    Attributes:
        tokens_in: prompt rows and input tokens; 0 if the model never read it.
        tokens_out: of the answer's sequences, or made until it failed.
        kind, timings: of the request, for traces.
    """

    origin: Origin
    outcome: Literal["answered", "failed", "cancelled"]
    tokens_in: int
    tokens_out: int
    work_units: int
    kind: RequestKind = "generate"
    timings: Timings | None = None


def work_units(request: Request, produced: Sequence[Produced] | None = None) -> int:
    """Prompt rows + input tokens of its own length + target tokens scored, or sequences x new tokens.

    Args:
        produced: its sequences. Beams run together, so each counts as long as the longest that is returned.
            Without them, the most that it may cost: `max_new_tokens` for each sequence.
    """
    return _input_tokens(request) + _after_input(request, produced)


def most_tokens(request: Request) -> int:
    """The most tokens that it may read and make; see `Settled`."""
    made = 0 if isinstance(request, ScoreRequest) else request.sampling.n * request.sampling.max_new_tokens
    return _input_tokens(request) + made


def settled(
    request: Request,
    outcome: RequestOutcome,
    produced: Sequence[Produced] | None,
    timings: Timings | None = None,
) -> Settled:
    """What a request with this outcome used.

    Args:
        produced: until it failed; None if the model never read it: it cost nothing. An answer has its own.
    """
    kind: RequestKind = "score" if isinstance(request, ScoreRequest) else "generate"
    if not isinstance(outcome, FailedEvent):
        word: Literal["answered", "failed", "cancelled"] = "answered"
        produced = outcome.sequences if isinstance(outcome, FinishedEvent) else ()
    else:
        word = "cancelled" if isinstance(outcome.error, CancelledError) else "failed"
        if produced is None:
            return Settled(request.origin, word, 0, 0, 0, kind, timings)
    tokens_in = _input_tokens(request)
    tokens_out = sum([len(each.tokens) for each in produced])
    units = tokens_in + _after_input(request, produced)
    return Settled(request.origin, word, tokens_in, tokens_out, units, kind, timings)


def _input_tokens(request: Request) -> int:
    # A list, not a generator: that takes twice as long, and this is on the engine's thread.
    return sum([part.length if isinstance(part, PromptHandle) else len(part) for part in request.input])


def _after_input(request: Request, produced: Sequence[Produced] | None) -> int:
    if isinstance(request, ScoreRequest):
        return sum(map(len, request.targets))
    sampling = request.sampling
    if produced is None:
        return sampling.slots * sampling.max_new_tokens
    if sampling.num_beams > 1:
        return sampling.slots * max((len(each.tokens) for each in produced), default=0)
    return sum([len(each.tokens) for each in produced])
