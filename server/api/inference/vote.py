"""Majority vote over members' answers. Pure: no engine, no text processing beyond normalising."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_QUOTES = "\"'`"
_END_PUNCTUATION = ".,;:!?" + _QUOTES


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one member said.

    Attributes:
        answer: as the member gave it.
        log_probability: of the answer, natural log; decides ties.
        weight: above 0.
    """

    answer: str
    log_probability: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class VoteResult:
    """A vote.

    Attributes:
        answer: the winner, as its earliest member gave it.
        counts: sums of weights by answer, as the earliest member gave it, largest first.
        agreement: the winner's share of all weights.
    """

    answer: str
    counts: dict[str, float]
    agreement: float


def majority(ballots: Sequence[Ballot]) -> VoteResult:
    """The normalised answer with the most weight.

    Ties go to the higher mean log probability of those who gave it, then to the earlier member.

    Args:
        ballots: at least one, in the members' order.
    """
    groups: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        groups.setdefault(normalise(ballot.answer), []).append(ballot)
    # `sorted` is stable and `groups` keeps the members' order: the earlier member wins what is still equal.
    ranked = sorted(groups.values(), key=lambda group: (-_weight(group), -_mean(group)))
    counts = {group[0].answer: _weight(group) for group in ranked}
    total = sum(ballot.weight for ballot in ballots)
    return VoteResult(ranked[0][0].answer, counts, counts[ranked[0][0].answer] / total)


def normalise(answer: str) -> str:
    """Answers that differ only in case, white space, Unicode form, quotes around or final punctuation are
    the same vote; `.5` and `5` are not."""
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    return text.rstrip(_END_PUNCTUATION + " ").lstrip(_QUOTES + " ") or text


def _weight(group: list[Ballot]) -> float:
    return sum(ballot.weight for ballot in group)


def _mean(group: list[Ballot]) -> float:
    return sum(ballot.log_probability for ballot in group) / len(group)
