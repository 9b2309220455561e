"""A corpus of made-up sentences, a vocabulary of it, and settings that train in seconds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from chorus_server.model.config import T5Config
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.corpus import Corpus
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.data.vocabulary import train_vocabulary
from chorus_server.pretraining.programs import PretrainingPrograms, make_programs
from chorus_server.pretraining.settings import PretrainingSettings
from chorus_server.pretraining.sources import RowSource

SETTINGS: dict[str, Any] = {
    "input_length": 24, "batch_size": 4, "micro_batch_size": 2, "steps": 6, "warmup_steps": 4,
    "evaluate_batches": 2, "seed": 5, "learning_rate": 0.02,
}  # fmt: skip
PIECES = 300


def settings(**more: Any) -> PretrainingSettings:
    return PretrainingSettings(**{**SETTINGS, **more})


def architecture(vocabulary_rows: int = 400) -> T5Config:
    return T5Config(
        name="toy", vocab_size=PIECES + 100, padded_vocab_size=vocabulary_rows, d_model=16, d_kv=4, d_ff=24,
        num_heads=2, num_encoder_layers=1, num_decoder_layers=2,
    )  # fmt: skip


def write_corpus(path: Path, books: int = 8, paragraphs: int = 12) -> Path:
    """Sentences of a tiny grammar, so that there is something to learn; the same at each call."""
    generator = np.random.default_rng(3)
    who, does, what = (
        ["the cat", "a grey wolf", "my old aunt", "the king of the north", "a small child"],
        ["sees", "follows", "paints", "remembers", "never forgets"],
        ["the red door", "a long river", "seven stones", "the quiet harbour", "an empty letter"],
    )
    text = []
    for _ in range(books):
        for _ in range(paragraphs):
            sentences = [
                " ".join(str(generator.choice(part)) for part in (who, does, what)) for _ in range(4)
            ]
            text.append(". ".join(sentences) + ".\n")
        text.append("\n")
    path.write_text("".join(text))
    return path


@lru_cache
def vocabulary(folder: Path) -> Vocabulary:
    path = folder / "spiece.model"
    if not path.exists():
        corpus = Corpus((write_corpus(folder / "vocabulary.txt"),))
        train_vocabulary(corpus, path, pieces=PIECES, seed=0, max_characters=100_000)
    return Vocabulary.load(path)


@lru_cache
def programs_for(chosen: PretrainingSettings) -> PretrainingPrograms:
    """Compiled once for runs of the same settings, on one device."""
    return make_programs(architecture(), chosen, None)


class RandomSource(RowSource):
    """Rows of random ids that need no files: full rows, or two examples a row."""

    digest = "random"

    def __init__(
        self, ids: int = 400, lengths: tuple[int, int] = (24, 8), *, segmented: bool = False
    ) -> None:
        self.facts: dict[str, Any] = {}
        self.lengths, self._ids, self._segmented = lengths, ids, segmented

    def rows(self, split: str, place: int, count: int) -> Rows:
        generator = np.random.default_rng([place, len(split)])
        L, T = self.lengths
        inputs = generator.integers(3, self._ids, (count, L)).astype(np.uint16)
        targets = inputs[:, :T].copy()  # to be learned: copying
        if not self._segmented:
            return Rows(inputs, None, targets, None)
        cut_input, cut_target = L // 3, T // 2
        first = np.where(np.arange(L) < cut_input, 1, 2).astype(np.uint8)
        second = np.where(np.arange(T) < cut_target, 1, 2).astype(np.uint8)
        return Rows(inputs, np.tile(first, (count, 1)), targets, np.tile(second, (count, 1)))
