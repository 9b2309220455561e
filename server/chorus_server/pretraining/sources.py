"""Where a run's rows come from: a pure function of the step, so that a run may stop and continue anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.chunks import Chunks
from chorus_server.pretraining.data.examples import Examples, read_examples
from chorus_server.pretraining.data.prefix_lm import chunk_length, pair_rows
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.data.span_corruption import corrupt, fitting_shape, noise_masks
from chorus_server.pretraining.data.tokens import Tokens
from chorus_server.pretraining.settings import PretrainingSettings

HELD_OUT_EXAMPLES = 0.02
"""Share of each task's examples on which the loss is measured."""


class RowSource(ABC):
    """Rows of one objective.

    Attributes:
        lengths: L and T.
        facts: what the model card says about the data.
        digest: SHA-256 (hex) that a continued run must find again.
    """

    lengths: tuple[int, int]
    facts: dict[str, Any]
    digest: str

    @abstractmethod
    def rows(self, split: str, place: int, count: int) -> Rows:
        """Rows from `place * count` on of the endless sequence of a split, `train` or `held_out`."""


class SpanSource(RowSource):
    """Span corruption of chunks."""

    def __init__(self, tokens: Tokens, vocabulary: Vocabulary, settings: PretrainingSettings) -> None:
        self._shape = fitting_shape(
            settings.input_length,
            settings.noise_density,
            settings.mean_span_length,
            sentinel_count(vocabulary),
        )
        self._seed, self._eos = settings.seed, vocabulary.eos_id
        self._sentinels = np.array([vocabulary.sentinel(n) for n in range(self._shape.spans)])
        self._chunks = _chunks(tokens, self._shape.chunk, settings.seed)
        self.lengths = self._shape.input_length, self._shape.target_length
        self.facts, self.digest = tokens.facts, tokens.digest

    def rows(self, split: str, place: int, count: int) -> Rows:
        masks = noise_masks(self._shape, count, split, self._seed, place)
        chunks = self._chunks[split].rows(place * count, count)
        inputs, targets = corrupt(chunks, masks, self._sentinels, self._eos)
        return Rows(inputs, None, targets, None)


class PrefixSource(RowSource):
    """The LM objective, with two chunks in a row."""

    def __init__(self, tokens: Tokens, vocabulary: Vocabulary, settings: PretrainingSettings) -> None:
        self._seed, self._eos = settings.seed, vocabulary.eos_id
        self._chunks = _chunks(tokens, chunk_length(settings.input_length), settings.seed)
        self.lengths = settings.input_length, settings.input_length
        self.facts, self.digest = tokens.facts, tokens.digest

    def rows(self, split: str, place: int, count: int) -> Rows:
        chunks = self._chunks[split].rows(2 * place * count, 2 * count)
        return pair_rows(chunks, self._eos, split, self._seed, place)


class ExampleSource(RowSource):
    """A supervised mixture, packed into rows."""

    def __init__(
        self, path: Path, left_out: tuple[str, ...], vocabulary: Vocabulary, settings: PretrainingSettings
    ) -> None:
        self.lengths = settings.input_length, settings.target_length
        self._seed, self._cap = settings.seed, settings.examples_cap
        train, held_out = read_examples(
            path, vocabulary, shape=self.lengths, left_out=left_out, held_out_share=HELD_OUT_EXAMPLES,
            seed=settings.seed,
        )  # fmt: skip
        self._splits: dict[str, Examples] = {"train": train, "held_out": held_out}
        self.facts, self.digest = train.facts, f"{train.facts['sha256']}-{','.join(train.left_out)}"

    def rows(self, split: str, place: int, count: int) -> Rows:
        return self._splits[split].rows(count, self.lengths, self._cap, split, self._seed, place)


def token_source(tokens: Tokens, vocabulary: Vocabulary, settings: PretrainingSettings) -> RowSource:
    """The source of a text objective."""
    kind = SpanSource if settings.objective == "span_corruption" else PrefixSource
    return kind(tokens, vocabulary, settings)


def sentinel_count(vocabulary: Vocabulary) -> int:
    """How many sentinels a vocabulary has, wherever they are."""
    count = 0
    while True:
        try:
            vocabulary.sentinel(count)
        except IndexError:
            return count
        count += 1


def _chunks(tokens: Tokens, length: int, seed: int) -> dict[str, Chunks]:
    return {
        "train": Chunks(tokens.train, length, seed),
        "held_out": Chunks(tokens.held_out, length, seed),
    }
