"""What a run needs before it can start: a vocabulary and token files. They are made once and then found
again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chorus_server.errors import InvalidInputError
from chorus_server.log import Say
from chorus_server.model.checkpoints.vocabulary_files import CANONICAL_NAME
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.corpus import open_corpus
from chorus_server.pretraining.data.tokens import Tokens, is_tokens, open_tokens, write_tokens
from chorus_server.pretraining.data.vocabulary import train_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """The text to learn from.

    Attributes:
        corpus: files; may be empty if there are token files already.
        tokens: folder of token files; None means `tokens` in the run's folder.
        held_out_share: share of the books.
        max_tokens: most tokens of training text; None takes all.
        pieces: number of pieces of a vocabulary that is made here.
        vocabulary_characters: how much text the vocabulary is made from.
    """

    corpus: tuple[Path, ...] = ()
    tokens: Path | None = None
    held_out_share: float = 0.005
    max_tokens: int | None = None
    pieces: int = 8_000
    vocabulary_characters: int = 20_000_000


def ensure_vocabulary(folder: Path, text: TextOptions, seed: int, say: Say) -> Path:
    """The run's `spiece.model`. It is made from the corpus if it does not exist. Raises InvalidInputError."""
    path = folder / CANONICAL_NAME
    if not path.is_file():
        say(f"making a vocabulary of {text.pieces:,} pieces")
        train_vocabulary(
            open_corpus(text.corpus), path, pieces=text.pieces, seed=seed,
            max_characters=text.vocabulary_characters,
        )  # fmt: skip
    return path


def ensure_tokens(folder: Path, vocabulary: Vocabulary, text: TextOptions, seed: int, say: Say) -> Tokens:
    """The run's token files. They are made from the corpus if they do not exist.

    Raises:
        InvalidInputError: there is neither a corpus nor token files, or the token files belong to another
            vocabulary or corpus.
    """
    place = text.tokens or folder / "tokens"
    if not is_tokens(place):
        if text.tokens is not None and not text.corpus:
            raise InvalidInputError(f"--tokens: {place} has no token files", field="tokens")
        say(f"tokenising into {place}")
        write_tokens(
            open_corpus(text.corpus), vocabulary, place, seed=seed, held_out_share=text.held_out_share,
            max_tokens=text.max_tokens,
        )  # fmt: skip
    tokens = open_tokens(place, vocabulary.digest)
    if text.corpus and open_corpus(text.corpus).facts() != tokens.facts["corpus"]:
        raise InvalidInputError(
            f"--corpus names text other than that of the token files in {place}; remove that "
            "folder, or choose another",
            field="corpus",
        )
    say(f"{len(tokens.train):,} tokens to train on, {len(tokens.held_out):,} held out")
    return tokens
