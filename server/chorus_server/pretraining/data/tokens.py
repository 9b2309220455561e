"""A corpus as ids, tokenised once into two flat files that every step reads by position.

train.bin, held_out.bin   ids, little-endian, u16 (u32 for a vocabulary of more than 65,536 ids)
tokens.json               counts, digests, and where the text came from; written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.model.checkpoints.atomic_folder import whole_folder
from chorus_server.model.checkpoints.documents import read_json, write_json
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.corpus import Corpus

TOKENS_FORMAT = "chorus-tokens"
SPLITS = ("train", "held_out")
TOKENS_METADATA = "tokens.json"

Ids = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Tokens:
    """Token files, open for reading.

    Attributes:
        train, held_out: flat ids, memory-mapped from the files.
        facts: the content of `tokens.json`.
    """

    train: Ids
    held_out: Ids
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) for the content of both files."""
        return hashlib.sha256(json.dumps([self.facts[split] for split in SPLITS]).encode()).hexdigest()


def is_tokens(folder: Path) -> bool:
    """Whether a folder has finished token files."""
    return (folder / TOKENS_METADATA).is_file()


def write_tokens(
    corpus: Corpus, vocabulary: Vocabulary, folder: Path, *, seed: int, held_out_share: float,
    max_tokens: int | None = None,
) -> None:  # fmt: skip
    """Tokenise a corpus into `folder`, which appears whole or not at all.

    Books follow each other without a mark between them, the way T5 concatenates documents.

    Args:
        max_tokens: most tokens of training text; None takes all.

    Raises:
        InvalidInputError: the corpus cannot be read, or is a single book.
    """
    apart = corpus.held_out(seed, held_out_share)
    dtype = np.dtype("<u2" if vocabulary.size <= 1 << 16 else "<u4")
    with whole_folder(folder) as making:
        counts, digests = dict.fromkeys(SPLITS, 0), {split: hashlib.sha256() for split in SPLITS}
        with (making / "train.bin").open("wb") as train, (making / "held_out.bin").open("wb") as held_out:
            files: dict[str, IO[bytes]] = {"train": train, "held_out": held_out}
            for split, ids in _encoded(corpus, vocabulary, apart):
                room = len(ids) if split == "held_out" or max_tokens is None else max_tokens - counts["train"]
                content = np.asarray(ids[: max(0, room)], dtype).tobytes()
                files[split].write(content)
                digests[split].update(content)
                counts[split] += len(content) // dtype.itemsize
        splits = {split: {"tokens": counts[split], "sha256": digests[split].hexdigest()} for split in SPLITS}
        document = {
            "format": TOKENS_FORMAT, "dtype": dtype.name, **splits, "vocabulary_digest": vocabulary.digest,
            "seed": seed, "held_out_share": held_out_share, "max_tokens": max_tokens,
            "held_out_books": sorted(apart), "corpus": corpus.facts(),
        }  # fmt: skip
        write_json(making / TOKENS_METADATA, document)


def open_tokens(folder: Path, vocabulary_digest: str) -> Tokens:
    """Open token files.

    Raises:
        InvalidInputError: these are not token files, are cut short, or were made with another vocabulary.
    """
    if not is_tokens(folder):
        raise _refused(f"{folder} has no {TOKENS_METADATA}: there are no token files")
    facts = read_json(folder / TOKENS_METADATA)
    if facts.get("format") != TOKENS_FORMAT:
        raise _refused(f"{folder / TOKENS_METADATA} does not describe token files")
    if facts["vocabulary_digest"] != vocabulary_digest:
        raise _refused(f"the token files in {folder} were made with another vocabulary; tokenise again")
    dtype = np.dtype(facts["dtype"]).newbyteorder("<")
    found = {}
    for split in SPLITS:
        path, wanted = folder / f"{split}.bin", facts[split]["tokens"]
        size = path.stat().st_size if path.is_file() else 0
        if size != wanted * dtype.itemsize:
            raise _refused(f"{path} has {size} bytes, expected {wanted * dtype.itemsize}; tokenise again")
        found[split] = np.memmap(path, dtype, "r") if wanted else np.zeros(0, dtype)
    return Tokens(found["train"], found["held_out"], facts)


def _encoded(
    corpus: Corpus, vocabulary: Vocabulary, apart: frozenset[int]
) -> Iterator[tuple[str, list[int]]]:
    for number, book in enumerate(corpus.books()):
        split = "held_out" if number in apart else "train"
        for paragraph in book:
            yield split, vocabulary.encode(paragraph)


def _refused(message: str) -> InvalidInputError:
    return InvalidInputError(message, field="tokens")
