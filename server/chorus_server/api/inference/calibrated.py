"""Labels of one input ranked, by what its version's calibration says of their log probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import best
from chorus_server.calibration.applying import scaled, softmax
from chorus_server.calibration.fitting import Scaling
from prompts_store.records import Calibration, PromptVersion


@dataclass(frozen=True, slots=True)
class Ranked:
    """What is known of one input's labels.

    Attributes:
        place: of the likeliest label.
        probabilities, log_probabilities: of each label; the second as the model gives them.
        calibration: the number of the record behind the probabilities; None if they are not calibrated.
    """

    place: int
    probabilities: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    calibration: int | None

    @property
    def log_probability(self) -> float:
        """Of the likeliest label, as the model gives it."""
        return self.log_probabilities[self.place]

    @property
    def facts(self) -> dict[str, Any]:
        """For an answer: whether it is calibrated, and by what."""
        return {"calibrated": self.calibration is not None, "calibration": self.calibration}


def ranked(item: Item, labels: Sequence[str], scores: Sequence[float], matrix_dtype: str) -> Ranked:
    """Rank labels. The newest calibration serves, if it was fitted for these labels, in any order, and with
    this server's type of matrices; else none does.

    Args:
        scores: log probability of each label.
        matrix_dtype: the server's.
    """
    made = calibration_for(item.version, labels, matrix_dtype)
    if made is None:
        return uncalibrated(scores)
    logits = scaled(scores, _scaling_of(made, labels))
    return Ranked(best(logits), tuple(softmax(logits)), tuple(scores), made.number)


def uncalibrated(scores: Sequence[float]) -> Ranked:
    """Rank labels by the plain softmax of their log probabilities."""
    return Ranked(best(scores), tuple(softmax(scores)), tuple(scores), None)


def calibration_for(
    version: PromptVersion | None, labels: Sequence[str], matrix_dtype: str
) -> Calibration | None:
    """The newest calibration of a version, if it serves for these labels; the base model has none."""
    made = None if version is None else version.calibration
    if made is None or made.fitted.matrix_dtype != matrix_dtype or set(made.fitted.labels) != set(labels):
        return None
    return made


def _scaling_of(made: Calibration, labels: Sequence[str]) -> Scaling:
    """The record for labels in the order of the request."""
    fitted = made.fitted
    if fitted.prior is None:
        return Scaling(fitted.temperature)
    prior = dict(zip(fitted.labels, fitted.prior, strict=True))
    return Scaling(fitted.temperature, tuple(prior[label] for label in labels))
