from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.quality.vote import Ballot, majority, normalise


def test_the_majority_wins_after_normalising() -> None:
    outcome = majority([Ballot("Positive.", -3), Ballot("negative", -0.1), Ballot(" positive", -4)])
    assert outcome.answer == "Positive."
    assert outcome.counts == {"Positive.": 2, "negative": 1}
    assert outcome.agreement == pytest.approx(2 / 3)


def test_a_tie_goes_to_the_higher_mean_log_probability() -> None:
    ballots = [Ballot("a", -1.0), Ballot("b", -0.2), Ballot("a", -1.0), Ballot("b", -1.0)]
    assert majority(ballots).answer == "b"
    # The control: were the tie decided by the sum of one side's best member only, the order would not matter.
    assert (
        majority([Ballot("a", -0.1), Ballot("b", -0.2), Ballot("a", -9.0), Ballot("b", -1.0)]).answer == "b"
    )


def test_what_is_still_equal_goes_to_the_earlier_member() -> None:
    assert majority([Ballot("b", -1), Ballot("a", -1)]).answer == "b"
    assert majority([Ballot("a", -1), Ballot("b", -1)]).answer == "a"


def test_weights_count_instead_of_heads() -> None:
    outcome = majority([Ballot("a", -1, 1.0), Ballot("a", -1, 1.0), Ballot("b", -9, 2.5)])
    assert outcome.answer == "b"
    assert outcome.agreement == pytest.approx(2.5 / 4.5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Yes", "yes ", True),
        ("yes.", "yes", True),
        ("a  b", "a b", True),
        ("\uff59es", "yes", True),
        ("yes", "no", False),
        (".", "!", False),
        ("1.5", "15", False),
        (".5", "5", False),
        ("-5", "5", False),
        ("'yes'.", "yes", True),
    ],
)
def test_normalising(one: str, other: str, same: bool) -> None:
    assert (normalise(one) == normalise(other)) is same


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "A ", "b", "c."]), st.floats(-20, 0), st.floats(0.1, 5)),
        min_size=1,
        max_size=9,
    )
)
def test_the_winner_is_a_member_with_the_most_weight(rows: list[tuple[str, float, float]]) -> None:
    ballots = [Ballot(*row) for row in rows]
    outcome = majority(ballots)
    assert outcome.answer in [ballot.answer for ballot in ballots]
    assert outcome.counts[outcome.answer] == max(outcome.counts.values())
    assert sum(outcome.counts.values()) == pytest.approx(sum(ballot.weight for ballot in ballots))
    assert 0 < outcome.agreement <= 1 + 1e-9
