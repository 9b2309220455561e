"""Fits against optima worked out by hand, a search in steps, and what must not change them."""

from __future__ import annotations

import math
import random

import pytest

from chorus_server.calibration.applying import probabilities
from chorus_server.calibration.fitting import HOLD, Scaling, Scores, fit
from prompts_store.records import LEAST_TEMPERATURE, MOST_TEMPERATURE

SEEDS = range(5)


def _drawn(
    seed: int, *, rows: int = 400, labels: int = 3, temperature: float = 1.0, prior: list[float] | None = None
) -> tuple[list[list[float]], list[int]]:
    """Scores, and truths drawn from their softmax at a temperature and a prior."""
    chance = random.Random(seed)
    scores = [[chance.gauss(0, 3) - 5 for _ in range(labels)] for _ in range(rows)]
    made = Scaling(temperature, tuple(prior) if prior else None)
    truth = [chance.choices(range(labels), probabilities(row, made))[0] for row in scores]
    return scores, truth


def _loss(scores: Scores, truth: list[int], found: Scaling) -> float:
    """What a fit makes least."""
    shares = [probabilities(row, found)[place] for row, place in zip(scores, truth, strict=True)]
    held = sum((own / found.temperature) ** 2 for own in found.prior or ())
    return -sum(map(math.log, shares)) + HOLD / 2 * held


def test_the_temperature_of_rows_that_are_alike_is_the_one_that_gives_their_accuracy() -> None:
    # Eight of ten are right where the log odds are 3: sigmoid(3 / T) = 0.8.
    found = fit([[0.0, -3.0]] * 50, [0] * 40 + [1] * 10)
    assert found.temperature == pytest.approx(3 / math.log(4), rel=1e-5)
    assert found.prior is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_that_rows_were_drawn_at_is_found(seed: int, temperature: float) -> None:
    scores, truth = _drawn(seed, rows=2000, temperature=temperature)
    assert fit(scores, truth).temperature == pytest.approx(temperature, rel=0.15)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("with_prior", [False, True])
def test_no_step_to_any_side_is_better(seed: int, with_prior: bool) -> None:
    scores, truth = _drawn(seed, temperature=1.7, prior=[1.0, -0.5, -0.5])
    found = fit(scores, truth, with_prior=with_prior)
    least = _loss(scores, truth, found)
    prior = list(found.prior or [0.0] * 3)
    for factor in (0.97, 1.03):
        scaled = tuple(own * factor for own in prior)
        assert _loss(scores, truth, Scaling(found.temperature * factor, scaled)) > least
    if with_prior:
        for label in range(3):
            for step in (-0.05, 0.05):
                moved = [own + step * (place == label) for place, own in enumerate(prior)]
                assert _loss(scores, truth, Scaling(found.temperature, tuple(moved))) > least


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prior_that_rows_were_drawn_with_is_found(seed: int) -> None:
    wanted = [1.5, 0.0, -1.5]
    scores, truth = _drawn(seed, rows=3000, prior=wanted)
    found = fit(scores, truth, with_prior=True)
    assert found.prior == pytest.approx(wanted, abs=0.35)
    assert sum(found.prior or ()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("with_prior", [False, True])
def test_what_says_nothing_changes_nothing(with_prior: bool) -> None:
    scores, truth = _drawn(7)
    found = fit(scores, truth, with_prior=with_prior)

    lifted = [[score + 100 * n for score in row] for n, row in enumerate(scores)]
    assert _near(fit(lifted, truth, with_prior=with_prior), found)

    order = list(range(len(scores)))
    random.Random(1).shuffle(order)
    mixed = fit([scores[n] for n in order], [truth[n] for n in order], with_prior=with_prior)
    assert _near(mixed, found)

    turned = fit([row[::-1] for row in scores], [2 - place for place in truth], with_prior=with_prior)
    back = None if turned.prior is None else turned.prior[::-1]
    assert _near(Scaling(turned.temperature, back), found)

    lost = [[math.nan, -1.0, -2.0], [-math.inf, -1.0, -2.0]]
    assert fit([*scores, *lost], [*truth, 0, 1], with_prior=with_prior) == found


def test_scores_twice_as_far_apart_have_twice_the_temperature() -> None:
    scores, truth = _drawn(3, temperature=1.3)
    twice = [[2 * score for score in row] for row in scores]
    assert fit(twice, truth).temperature == pytest.approx(2 * fit(scores, truth).temperature, rel=1e-4)


@pytest.mark.parametrize("with_prior", [False, True])
def test_labels_that_are_all_alike_leave_the_temperature_at_one(with_prior: bool) -> None:
    found = fit([[-2.0, -2.0]] * 60, [0] * 40 + [1] * 20, with_prior=with_prior)
    assert found.temperature == 1
    if with_prior:
        assert found.prior is not None
        # 60 sigmoid(2 b) - 40 + b = 0 for the first label's b, which is its prior with the other sign.
        b = -found.prior[0]
        assert 60 / (1 + math.exp(-2 * b)) - 40 + HOLD * b == pytest.approx(0, abs=1e-2)


def test_a_label_that_no_row_answers_has_a_finite_prior() -> None:
    scores, truth = _drawn(5, labels=2)
    wider = [[*row, -6.0] for row in scores]
    found = fit(wider, truth, with_prior=True)
    assert found.prior is not None
    assert all(map(math.isfinite, found.prior))
    assert found.prior[2] > 0  # it is answered less often than its scores say


@pytest.mark.parametrize("with_prior", [False, True])
def test_rows_that_are_all_right_or_all_wrong_stay_within_the_bounds(with_prior: bool) -> None:
    chance = random.Random(2)
    scores = [[0.0, -chance.uniform(0.1, 5)] for _ in range(60)]
    for right in (0, 1):
        found = fit(scores, [right] * 60, with_prior=with_prior)
        assert LEAST_TEMPERATURE <= found.temperature <= MOST_TEMPERATURE
    assert fit(scores, [0] * 60).temperature == pytest.approx(LEAST_TEMPERATURE, rel=1e-3)
    assert fit(scores, [1] * 60).temperature == pytest.approx(MOST_TEMPERATURE, rel=1e-3)


def test_one_row_is_enough_and_none_is_refused() -> None:
    assert LEAST_TEMPERATURE <= fit([[-1.0, -2.0]], [1]).temperature <= MOST_TEMPERATURE
    with pytest.raises(ValueError, match="finite"):
        fit([[math.nan, 0.0]], [0])


def test_log_probabilities_of_long_labels_do_not_overflow() -> None:
    scores, truth = _drawn(11)
    far = [[-4000 + 30 * score for score in row] for row in scores]
    found = fit(far, truth)
    assert LEAST_TEMPERATURE <= found.temperature <= MOST_TEMPERATURE


def _near(one: Scaling, other: Scaling) -> bool:
    pairs = zip(one.prior or (), other.prior or (), strict=True)
    return one.temperature == pytest.approx(other.temperature, rel=1e-4) and all(
        own == pytest.approx(its, abs=1e-3) for own, its in pairs
    )
