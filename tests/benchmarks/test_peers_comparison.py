"""Ratios of interleaved rounds, merged pieces, accuracy and the floor: on turns written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.machine import instruction_sets
from benchmarks.peers.comparison import (
    best_peer,
    equal_answers,
    label_accuracy,
    merged,
    passing,
    ratios,
)

OURS = ("chorus", "chorus_bf16")


def turn(name: str, seconds: float) -> dict[str, Any]:
    return {"round": name, "seconds": seconds}


def turns(**seconds: list[float]) -> dict[str, list[dict[str, Any]]]:
    """Every contender's seconds in rounds 1, 2, 3..."""
    return {
        contender: [turn(f"{n}", each) for n, each in enumerate(theirs)]
        for contender, theirs in seconds.items()
    }


def result(load: str, measured: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "machine": {"processor": "one", "instruction_sets": ["avx2"], "cores": 2, "commit": "a"},
        "versions": {"torch": "2"},
        "settings": {},
        "shipped": "chorus",
        "accuracy": {},
        "loads": {load: {"load": {"name": load}, "turns": measured}},
        **fields,
    }


def test_a_ratio_is_the_median_over_rounds_of_their_time_over_ours() -> None:
    assert ratios(turns(chorus=[1, 2, 4], slow=[3, 4, 4]), "chorus") == {"slow": 2.0}


def test_turns_of_different_rounds_are_never_compared() -> None:
    # The machine was twice as slow in the second piece, for everybody: the ratios must not show it.
    measured = {
        "chorus": [turn("first/1", 1.0), turn("second/1", 2.0)],
        "here": [turn("first/1", 1.5)],
        "there": [turn("second/1", 3.0)],
        "elsewhere": [turn("third/1", 3.0)],
    }
    assert ratios(measured, "chorus") == {"here": 1.5, "there": 1.5}


def test_merging_adds_rounds_loads_and_accuracy() -> None:
    first = result("labels_64", {"chorus": [turn("a/1", 1.0)]}, accuracy={"chorus": 1})
    again = result("labels_64", {"chorus": [turn("b/1", 2.0)], "peft": [turn("b/1", 3.0)]})
    other = result("text_64", {"chorus": [turn("c/1", 4.0)]}, accuracy={"peft": 2})
    found = merged(merged(first, again), other)
    assert found["loads"]["labels_64"]["turns"] == {
        "chorus": [turn("a/1", 1.0), turn("b/1", 2.0)],
        "peft": [turn("b/1", 3.0)],
    }
    assert found["loads"]["text_64"]["turns"] == {"chorus": [turn("c/1", 4.0)]}
    assert found["accuracy"] == {"chorus": 1, "peft": 2}
    assert first["loads"]["labels_64"]["turns"] == {"chorus": [turn("a/1", 1.0)]}, (
        "the kept one is left alone"
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"machine": {"processor": "two", "instruction_sets": ["avx2"], "cores": 2}}, "machine.processor"),
        ({"machine": {"processor": "one", "instruction_sets": [], "cores": 2}}, "machine.instruction_sets"),
        ({"versions": {"torch": "3"}}, "versions"),
        ({"settings": {"peers": "batches of 1"}}, "settings"),
        ({"shipped": "chorus_bf16"}, "shipped"),
    ],
)
def test_pieces_that_are_not_alike_are_refused(change: dict[str, Any], field: str) -> None:
    kept = result("labels_64", {})
    with pytest.raises(ValueError, match=f"^{field} differs"):
        merged(kept, result("labels_64", {}, **change))


def test_the_best_peer_is_the_fastest_that_passes() -> None:
    measured = turns(chorus=[2, 2], chorus_bf16=[0.5, 0.5], wrong=[1, 1], right=[3, 3], slow=[9, 9])
    assert best_peer(measured, "chorus", OURS) == ("wrong", 0.5)
    assert best_peer(measured, "chorus", OURS, passing=["right", "slow"]) == ("right", 1.5)
    assert best_peer(measured, "chorus_bf16", OURS, passing=["right"]) == ("right", 6.0)
    assert best_peer(measured, "chorus", OURS, passing=[]) is None


def test_an_answer_is_equal_only_token_by_token() -> None:
    assert equal_answers([[1, 2], [1], [1, 2, 3]], [[1, 2], [1, 2], [1, 2]]) == 1
    with pytest.raises(ValueError, match="longer"):
        equal_answers([[1]], [[1], [2]])


def test_a_label_with_anything_after_it_is_wrong() -> None:
    assert label_accuracy([[7], [7, 8], [9], []], [[7], [7], [9], [9]]) == 50.0


def test_the_floor_is_half_a_point_on_each_task() -> None:
    def of(sst2: float, trec: float) -> dict[str, Any]:
        return {"labels": {"sst2": sst2, "trec": trec}}

    accuracy = {
        "reference": of(87.0, 89.0),
        "at": of(86.5, 88.5),
        "under": of(95.0, 88.4),
        "over": of(87.1, 89.0),
    }
    assert passing(accuracy, "reference") == ["reference", "at", "over"]


def test_instruction_sets_are_those_of_the_first_processor() -> None:
    intel = (
        "processor\t: 0\nflags\t\t: fpu avx2 amx_int8 avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n"
    )
    assert instruction_sets(intel) == ["avx2", "avx512_bf16", "amx_int8"]
    assert instruction_sets("processor\t: 0\nFeatures\t: fp asimd bf16\n") == ["asimd", "bf16"]
    assert instruction_sets("") == []
