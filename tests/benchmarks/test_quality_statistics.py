"""The statistics that docs/quality.md rests on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tuning.results import read, written
from benchmarks.tuning.statistics import majority, paired_bootstrap, right


def test_most_votes_win() -> None:
    assert majority([[0, 1], [1, 1], [1, 2]]) == [1, 1]


def test_a_tie_goes_to_the_higher_mean_log_probability_then_to_the_earlier_member() -> None:
    members = [[0], [1], [0], [1]]
    surer = np.array([[-3.0], [-1.0], [-2.0], [-1.5]])
    assert majority(members, surer) == [1]
    assert majority(members, np.full((4, 1), -1.0)) == [0]
    assert majority(members) == [0]


def test_confidence_never_outvotes_a_majority() -> None:
    assert majority([[0], [1], [1]], np.array([[-0.01], [-9.0], [-9.0]])) == [1]


def test_an_answer_that_is_no_label_votes_for_nothing() -> None:
    assert majority([[-1], [-1], [2]]) == [2]
    assert majority([[-1], [-1], [-1]]) == [-1]


def test_an_interval_holds_the_difference_and_is_narrow_where_all_examples_agree() -> None:
    found = paired_bootstrap(np.ones(50), np.zeros(50))
    assert found == {"difference": 1.0, "low": 1.0, "high": 1.0}


def test_the_interval_has_the_width_that_theory_gives_it() -> None:
    generator = np.random.default_rng(3)
    ours = (generator.random(2000) < 0.8).astype(float)
    theirs = (generator.random(2000) < 0.7).astype(float)
    found = paired_bootstrap(ours, theirs)
    deviation = (ours - theirs).std() / np.sqrt(2000)
    assert found["low"] == pytest.approx(found["difference"] - 1.96 * deviation, abs=0.003)
    assert found["high"] == pytest.approx(found["difference"] + 1.96 * deviation, abs=0.003)


def test_pairing_matters() -> None:
    """The same accuracies, right on the same examples or on others: only the first is a sure difference."""
    theirs = np.arange(100) < 60
    same = np.arange(100) < 66
    others = np.roll(np.arange(100) < 66, 40)
    assert paired_bootstrap(same, theirs)["low"] > 0
    assert paired_bootstrap(others, theirs)["low"] < 0


def test_five_copies_of_one_seed_make_no_interval_narrower() -> None:
    """The control: examples taken as 5 times as many would make it so."""
    generator = np.random.default_rng(5)
    ours = (generator.random(60) < 0.7).astype(float)
    theirs = np.zeros(60)
    one, five = paired_bootstrap(ours, theirs), paired_bootstrap(np.tile(ours, (5, 1)), theirs)
    assert five["low"] == pytest.approx(one["low"]) and five["high"] == pytest.approx(one["high"])
    flat = paired_bootstrap(np.tile(ours, 5), np.tile(theirs, 5))
    assert flat["high"] - flat["low"] < 0.6 * (one["high"] - one["low"])


def test_splits_of_different_sizes_are_not_paired() -> None:
    with pytest.raises(ValueError, match="not the same split"):
        paired_bootstrap(np.ones(5), np.ones(6))


def test_right_answers_by_seed() -> None:
    assert right([[0, 1], [1, -1]], [0, 1]).tolist() == [[1, 1], [0, 0]]


def test_predictions_survive_being_written() -> None:
    places = [*range(77), -1]
    assert read(written(places)) == places
