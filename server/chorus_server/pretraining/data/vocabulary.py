"""A SentencePiece vocabulary like T5's: unigram, pad 0, `</s>` 1, unknown 2, no beginning piece.

Bytes are pieces too, so that no text is unknown. Sentinels are not in the file: `Vocabulary` puts them after
its pieces, with `<extra_id_0>` as the highest.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece

from chorus_server.errors import InvalidInputError
from chorus_server.pretraining.data.corpus import Corpus
from chorus_server.pretraining.data.randomness import bits

MAX_PIECE_SENTENCE = 4_000
"""Most characters of one training sentence; SentencePiece leaves out longer ones."""

THREADS = 4
"""Fixed, because sums over threads decide which piece is dropped; this makes them the same on every
machine."""


def train_vocabulary(corpus: Corpus, target: Path, *, pieces: int, seed: int, max_characters: int) -> None:
    """Write `target`, a SentencePiece model of exactly `pieces` pieces (256 bytes, three controls).

    Args:
        max_characters: how much text to learn from. Paragraphs are drawn from the whole corpus by seed.

    Raises:
        InvalidInputError: the corpus is too small for this many pieces.
    """
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(corpus, seed, max_characters), model_writer=written,
            vocab_size=pieces, model_type="unigram", byte_fallback=True, pad_id=0, eos_id=1, unk_id=2,
            bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
            max_sentence_length=4 * MAX_PIECE_SENTENCE + 4, num_threads=THREADS, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        raise InvalidInputError(
            f"SentencePiece could not make {pieces} pieces from this corpus: {_last_sentence(error)}. Choose "
            "fewer with --pieces, or give more text",
            field="pieces",
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".partial")
    temporary.write_bytes(written.getvalue())
    temporary.replace(target)


def _sentences(corpus: Corpus, seed: int, max_characters: int) -> Iterator[str]:
    """Paragraphs of all books, each kept with the same probability, with about `max_characters` in all."""
    paragraphs, _ = corpus.counts
    total = sum(len(paragraph) for book in corpus.books() for paragraph in book)
    kept = bits(paragraphs, "vocabulary", seed) <= np.uint64(
        min(1.0, max_characters / total) * (2**64 - 2**11)
    )
    number = 0
    for book in corpus.books():
        for paragraph in book:
            if kept[number]:
                for start in range(0, len(paragraph), MAX_PIECE_SENTENCE):
                    yield paragraph[start : start + MAX_PIECE_SENTENCE]
            number += 1


def _last_sentence(error: RuntimeError) -> str:
    return str(error).replace("\n", " ").rsplit("] ", 1)[-1].strip(" .")[:200]
