"""What a run needs before it can start: a vocabulary and token files, made once and found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidInputError
from server.log import Say
from server.model.checkpoints.vocabulary_files import CANONICAL_NAME
from server.model.vocabulary import Vocabulary
from server.pretraining.data.corpus import open_corpus
from server.pretraining.data.tokens import Tokens, is_tokens, open_tokens, write_tokens
from server.pretraining.data.vocabulary import train_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """Text to learn from.

    Attributes:
        corpus: files; may be empty when token files are there already.
        tokens: folder of token files; None is `tokens` in the run's folder.
        held_out_share: of the books.
        max_tokens: of training text; None takes all.
        pieces: of a vocabulary that is made here.
        vocabulary_characters: of text that it is made from.
    """

    corpus: tuple[Path, ...] = ()
    tokens: Path | None = None
    held_out_share: float = 0.005
    max_tokens: int | None = None
    pieces: int = 8_000
    vocabulary_characters: int = 20_000_000


def ensure_vocabulary(folder: Path, text: TextOptions, seed: int, say: Say) -> Path:
    """The run's `spiece.model`, made from the corpus when it is not there yet. Raises InvalidInputError."""
    path = folder / CANONICAL_NAME
    if not path.is_file():
        say(f"making a vocabulary of {text.pieces:,} pieces")
        train_vocabulary(
            open_corpus(text.corpus), path, pieces=text.pieces, seed=seed,
            max_characters=text.vocabulary_characters,
        )  # fmt: skip
    return path


def ensure_tokens(folder: Path, vocabulary: Vocabulary, text: TextOptions, seed: int, say: Say) -> Tokens:
    """The run's token files, made from the corpus when they are not there yet.

    Raises:
        InvalidInputError: no corpus and no token files, or token files of another vocabulary or corpus.
    """
    place = text.tokens or folder / "tokens"
    if not is_tokens(place):
        if text.tokens is not None and not text.corpus:
            raise InvalidInputError(f"--tokens: {place} holds no token files", field="tokens")
        say(f"tokenising into {place}")
        write_tokens(
            open_corpus(text.corpus), vocabulary, place, seed=seed, held_out_share=text.held_out_share,
            max_tokens=text.max_tokens,
        )  # fmt: skip
    tokens = open_tokens(place, vocabulary.digest)
    if text.corpus and open_corpus(text.corpus).facts() != tokens.facts["corpus"]:
        raise InvalidInputError(
            f"--corpus names other text than the token files in {place} were made from; remove that "
            "folder, or choose another",
            field="corpus",
        )
    say(f"{len(tokens.train):,} tokens to train on, {len(tokens.held_out):,} held out")
    return tokens
