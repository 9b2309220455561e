"""Finds the SentencePiece vocabulary of a checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import read_json
from chorus_server.model.config import T5Config
from chorus_server.model.vocabulary import Vocabulary

VOCABULARY_NAMES = ("spiece.model", "sentencepiece.model")
CANONICAL_NAME = VOCABULARY_NAMES[0]


@dataclass(frozen=True, slots=True)
class FoundVocabulary:
    """A vocabulary file, how many sentinels follow its pieces, its number of ids, and its special ids."""

    path: Path
    extra_ids: int
    size: int
    pad_id: int
    eos_id: int
    unk_id: int


def find_file(folder: Path) -> Path | None:
    """The SentencePiece model in a folder, or None."""
    return next((folder / name for name in VOCABULARY_NAMES if (folder / name).is_file()), None)


def find_vocabulary(
    folder: Path, explicit: Path | None = None, rows: int | None = None
) -> FoundVocabulary | None:
    """The vocabulary of a folder: `explicit` if given, else `spiece.model` in the folder, else None.

    Args:
        rows: rows of the embedding, if known. A vocabulary that has the sentinels as pieces (mT5's) gets no
            others.

    Raises:
        InvalidModelError: `explicit` is not a file, or the file is not a SentencePiece model.
    """
    path = explicit or find_file(folder)
    if path is None:
        return None
    found = _found(path, _extra_ids(folder))
    if rows is not None and found.size > rows >= found.size - found.extra_ids:
        return dataclasses.replace(found, size=found.size - found.extra_ids, extra_ids=0)
    return found


def known_vocabulary(folder: Path, explicit: Path | None, config: T5Config) -> FoundVocabulary | None:
    """Like `find_vocabulary`, if the config already says how many sentinels there are.

    Raises:
        InvalidModelError: the vocabulary has more ids than the model, or other special ids.
    """
    path = explicit or find_file(folder)
    if path is None:
        return None
    found = _found(path, config.extra_ids)
    check_vocabulary(config, found)
    return found


def check_vocabulary(config: T5Config, found: FoundVocabulary | None) -> None:
    """Refuse a vocabulary with more ids than the model, or with other ids for padding or the end of a text.

    Raises:
        InvalidModelError: names the ids of both.
    """
    if found is None:
        return
    if found.size > config.vocab_size:
        raise InvalidModelError(
            f"the vocabulary {found.path.name} has {found.size} ids, but the model {config.vocab_size}: "
            "it belongs to another model",
            field="vocabulary",
        )
    for field, said, piece, own in (
        ("eos_token_id", config.eos_id, "</s>", found.eos_id),
        ("pad_token_id", config.pad_id, "<pad>", found.pad_id),
    ):
        if said != own:
            raise InvalidModelError(
                f"the model's config says {field} {said}, but {found.path.name} has {piece} at {own}: one of "
                "them belongs to another model",
                field=field,
            )


def fit_vocabulary(config: T5Config, path: Path | None) -> tuple[T5Config, FoundVocabulary | None]:
    """A config with the vocabulary size of a file. If it has too few embedding rows, they are padded to a
    multiple of 128."""
    if path is None:
        return config, None
    found = _found(path, config.extra_ids)
    size = found.size
    rows = config.padded_vocab_size if size <= config.padded_vocab_size else -(-size // 128) * 128
    fitted = dataclasses.replace(config, vocab_size=size, padded_vocab_size=rows)
    check_vocabulary(fitted, found)
    return fitted, found


def write_vocabulary(folder: Path, vocabulary: FoundVocabulary | None) -> str | None:
    """Copy the SentencePiece file into a checkpoint. Returns the vocabulary's digest."""
    if vocabulary is None:
        return None
    shutil.copyfile(vocabulary.path, folder / CANONICAL_NAME)
    return Vocabulary.load(vocabulary.path, extra_ids=vocabulary.extra_ids).digest


def _found(path: Path, extra_ids: int) -> FoundVocabulary:
    vocabulary = Vocabulary.load(path, extra_ids=extra_ids)
    return FoundVocabulary(
        path, extra_ids, vocabulary.size, vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id
    )


def _extra_ids(folder: Path) -> int:
    path = folder / "tokenizer_config.json"
    value = read_json(path).get("extra_ids") if path.is_file() else None
    return value if type(value) is int and 0 <= value <= 1000 else 100
