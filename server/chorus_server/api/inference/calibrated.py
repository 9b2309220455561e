"""Labels of one input ranked, by what its version's calibration says of their log probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import best
from chorus_server.calibration.applying import scaled, softmax
from chorus_server.calibration.fitting import Scaling
from prompts_store.records import Calibration

RAW = Scaling(1.0)
"""What answers where no calibration does: the softmax of the log probabilities."""


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
    made = None if item.version is None else item.version.calibration
    if made is None or made.fitted.matrix_dtype != matrix_dtype or set(made.fitted.labels) != set(labels):
        made = None
    logits = scaled(scores, RAW if made is None else _scaling_of(made, labels))
    number = None if made is None else made.number
    return Ranked(best(logits), tuple(softmax(logits)), tuple(scores), number)


def _scaling_of(made: Calibration, labels: Sequence[str]) -> Scaling:
    """The record for labels in the order of the request."""
    fitted = made.fitted
    if fitted.prior is None:
        return Scaling(fitted.temperature)
    prior = dict(zip(fitted.labels, fitted.prior, strict=True))
    return Scaling(fitted.temperature, tuple(prior[label] for label in labels))
