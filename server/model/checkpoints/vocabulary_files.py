"""Finding the SentencePiece vocabulary that belongs to a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidModelError
from server.model.checkpoints.documents import read_json
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
    if not path.is_file():
        raise InvalidModelError(f"there is no vocabulary file {path}", field="vocabulary")
    extra_ids = _extra_ids(folder)
    size = Vocabulary.load(path, extra_ids=extra_ids).size
    if rows is not None and size > rows >= size - extra_ids:
        size, extra_ids = size - extra_ids, 0
    return FoundVocabulary(path, extra_ids, size)


def _extra_ids(folder: Path) -> int:
    path = folder / "tokenizer_config.json"
    value = read_json(path).get("extra_ids") if path.is_file() else None
    return value if type(value) is int and 0 <= value <= 1000 else 100
