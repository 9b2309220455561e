"""What `run.py` makes of turns and answers: merged pieces, ratios, accuracy. No process, no model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Turn = dict[str, Any]
"""`seconds`, and `round`: a name that the turns of one round share. Only turns of one round are compared."""
Turns = dict[str, list[Turn]]
Tokens = Sequence[Sequence[int]]

FLOOR_POINTS = 0.5
"""How far under the f32 reference a peer's label accuracy may be, on each task, in points of 100."""


def merged(kept: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The turns and accuracy of both; `new` measured more, on the same machine with the same versions.

    Raises:
        ValueError: they are of two machines, versions or settings.
    """
    for field in ("processor", "instruction_sets", "cores"):
        if kept["machine"][field] != new["machine"][field]:
            raise ValueError(
                f"machine.{field} differs from the kept result's: keep this one in another --out"
            )
    for field in ("versions", "settings", "shipped"):
        if kept[field] != new[field]:
            raise ValueError(f"{field} differs from the kept result's: keep this one in another --out")
    loads = {name: dict(load) for name, load in kept["loads"].items()}
    for name, load in new["loads"].items():
        before = loads.setdefault(name, {"load": load["load"], "turns": {}})
        turns = {contender: list(theirs) for contender, theirs in before["turns"].items()}
        for contender, theirs in load["turns"].items():
            turns.setdefault(contender, []).extend(theirs)
        before["turns"] = turns
    return {
        **kept,
        "machine": new["machine"],
        "loads": loads,
        "accuracy": {**kept["accuracy"], **new["accuracy"]},
    }


def ratios(turns: Turns, of: str) -> dict[str, float]:
    """How many times the time of `of` the others take: the median over the rounds that both were in."""
    own = {turn["round"]: turn["seconds"] for turn in turns.get(of, [])}
    found = {}
    for contender, theirs in turns.items():
        pairs = [turn["seconds"] / own[turn["round"]] for turn in theirs if turn["round"] in own]
        if pairs and contender != of:
            found[contender] = round(statistics.median(pairs), 3)
    return found


def best_peer(
    turns: Turns, shipped: str, ours: Sequence[str], passing: Sequence[str] | None = None
) -> tuple[str, float] | None:
    """The fastest peer and how many times its requests a second `shipped` makes; None without peers.

    Args:
        passing: the peers to look at; None is all.
    """
    theirs = {
        peer: ratio
        for peer, ratio in ratios(turns, shipped).items()
        if peer not in ours and (passing is None or peer in passing)
    }
    return min(theirs.items(), key=lambda item: item[1]) if theirs else None


def equal_answers(answers: Tokens, reference: Tokens) -> int:
    """How many answers are the reference's, token by token."""
    return sum(list(ours) == list(theirs) for ours, theirs in zip(answers, reference, strict=True))


def label_accuracy(answers: Tokens, truth: Tokens) -> float:
    """Percent of the answers that are the label's tokens and nothing else."""
    return round(100 * equal_answers(answers, truth) / len(truth), 2)


def passing(accuracy: dict[str, dict[str, Any]], reference: str) -> list[str]:
    """The contenders whose label accuracy is on every task at most `FLOOR_POINTS` under the reference's."""
    least = {task: share - FLOOR_POINTS for task, share in accuracy[reference]["labels"].items()}
    return [
        contender
        for contender, found in accuracy.items()
        if all(found["labels"][task] >= share for task, share in least.items())
    ]
