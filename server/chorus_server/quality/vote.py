"""Majority vote over members' answers. Pure: it needs no engine, and normalises text but does nothing else
with it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_QUOTES = "\"'`"
_END_PUNCTUATION = ".,;:!?" + _QUOTES


@dataclass(frozen=True, slots=True)
class Ballot:
    """The answer of one member.

    Attributes:
        answer: as the member gave it.
        log_probability: natural logarithm of the answer's probability; decides ties.
        weight: above 0.
    """

    answer: str
    log_probability: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class VoteResult:
    """The result of a vote.

    Attributes:
        answer: the winner, as its earliest member gave it.
        counts: sum of weights for each answer, largest first. Answers appear as their earliest member gave
            them.
        agreement: the winner's share of all weights.
    """

    answer: str
    counts: dict[str, float]
    agreement: float


def majority(ballots: Sequence[Ballot]) -> VoteResult:
    """The normalised answer with the most weight.

    Ties go to the answer whose members have the higher mean log probability, then to the earlier member.

    Args:
        ballots: at least one, in the members' order.
    """
    groups: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        groups.setdefault(normalise(ballot.answer), []).append(ballot)
    # `sorted` is stable and `groups` keeps the members' order, so the earlier member wins a remaining tie.
    ranked = sorted(groups.values(), key=lambda group: (-_weight(group), -_mean(group)))
    counts = {group[0].answer: _weight(group) for group in ranked}
    total = sum(ballot.weight for ballot in ballots)
    return VoteResult(ranked[0][0].answer, counts, counts[ranked[0][0].answer] / total)


def normalise(answer: str) -> str:
    """Answers count as the same if they differ only in case, white space, Unicode form, surrounding quotes or
    final punctuation. `.5` and `5` stay different."""
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    return text.rstrip(_END_PUNCTUATION + " ").lstrip(_QUOTES + " ") or text


def _weight(group: list[Ballot]) -> float:
    return sum(ballot.weight for ballot in group)


def _mean(group: list[Ballot]) -> float:
    return sum(ballot.log_probability for ballot in group) / len(group)
