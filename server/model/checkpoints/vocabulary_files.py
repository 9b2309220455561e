"""Finding the SentencePiece vocabulary that belongs to a checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidModelError
from server.model.checkpoints.documents import read_json
from server.model.config import T5Config
from server.model.vocabulary import Vocabulary

NAMES = ("spiece.model", "sentencepiece.model")
CANONICAL_NAME = NAMES[0]


@dataclass(frozen=True, slots=True)
class FoundVocabulary:
    """A vocabulary file, how many sentinels follow its pieces, and ids in all."""

    path: Path
    extra_ids: int
    size: int


def find_vocabulary(
    folder: Path, explicit: Path | None = None, rows: int | None = None
) -> FoundVocabulary | None:
    """The vocabulary of a folder: `explicit` if given, else `spiece.model` in it, else None.

    Args:
        rows: of the embedding, when known: a vocabulary whose sentinels are pieces already (mT5's) gets no
            others.

    Raises:
        InvalidModelError: `explicit` is not a file, or the file is not a SentencePiece model.
    """
    path = explicit or next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    extra_ids = _extra_ids(folder)
    size = Vocabulary.load(path, extra_ids=extra_ids).size
    if rows is not None and size > rows >= size - extra_ids:
        size, extra_ids = size - extra_ids, 0
    return FoundVocabulary(path, extra_ids, size)


def known_vocabulary(folder: Path, explicit: Path | None, config: T5Config) -> FoundVocabulary | None:
    """As `find_vocabulary`, where the config says already how many sentinels there are.

    Raises:
        InvalidModelError: the vocabulary has more ids than the model.
    """
    path = explicit or next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    size = Vocabulary.load(path, extra_ids=config.extra_ids).size
    if size > config.vocab_size:
        raise InvalidModelError(
            f"the vocabulary {path.name} has {size} ids and the model {config.vocab_size}: "
            "it belongs to another model",
            field="vocabulary",
        )
    return FoundVocabulary(path, config.extra_ids, size)


def fit_vocabulary(config: T5Config, path: Path | None) -> tuple[T5Config, FoundVocabulary | None]:
    """A config whose vocabulary size is that of a file, with embedding rows padded to a multiple of 128 if it
    has too few."""
    if path is None:
        return config, None
    size = Vocabulary.load(path, extra_ids=config.extra_ids).size
    rows = config.padded_vocab_size if size <= config.padded_vocab_size else -(-size // 128) * 128
    fitted = dataclasses.replace(config, vocab_size=size, padded_vocab_size=rows)
    return fitted, FoundVocabulary(path, config.extra_ids, size)


def write_vocabulary(folder: Path, vocabulary: FoundVocabulary | None) -> str | None:
    """Copy the SentencePiece file into a checkpoint; returns the vocabulary's digest."""
    if vocabulary is None:
        return None
    shutil.copyfile(vocabulary.path, folder / CANONICAL_NAME)
    return Vocabulary.load(vocabulary.path, extra_ids=vocabulary.extra_ids).digest


def _extra_ids(folder: Path) -> int:
    path = folder / "tokenizer_config.json"
    value = read_json(path).get("extra_ids") if path.is_file() else None
    return value if type(value) is int and 0 <= value <= 1000 else 100
