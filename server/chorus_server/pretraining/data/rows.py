"""The rows of a micro-batch as they leave the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chorus_server.pretraining.data.tokens import Ids

Segments = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Rows:
    """B rows. Several examples may share one.

    Attributes:
        inputs: [B, L] ids, as the token files store them.
        input_segments: [B, L]: 1, 2, ... for the examples of a row and 0 after the last; None if each row is
            one whole example.
        targets: [B, T] ids.
        target_segments: [B, T], like `input_segments`; None if that is None.
    """

    inputs: Ids
    input_segments: Segments | None
    targets: Ids
    target_segments: Segments | None

    @property
    def tokens(self) -> int:
        """Number of ids in inputs and targets, without padding."""
        if self.input_segments is None or self.target_segments is None:
            return self.inputs.size + self.targets.size
        return int(np.count_nonzero(self.input_segments) + np.count_nonzero(self.target_segments))
