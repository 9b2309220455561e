"""Text files become books, vocabulary, token files and chunks; the same each time, whole or not at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.chunks import Chunks
from chorus_server.pretraining.data.corpus import Corpus, open_corpus
from chorus_server.pretraining.data.tokens import Tokens, open_tokens, write_tokens
from chorus_server.pretraining.data.vocabulary import train_vocabulary
from tests.server.pretraining.pretraining_tools import PIECES, write_corpus


def test_books_are_the_same_plain_or_compressed(tmp_path: Path) -> None:
    plain = tmp_path / "books.txt"
    plain.write_text("one  line\nanother\n\n\nsecond book\n \nthird\n")
    packed = tmp_path / "books.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = [["one line", "another"], ["second book"], ["third"]]
    assert list(Corpus((plain,)).books()) == list(Corpus((packed,)).books()) == expected
    assert list(Corpus((plain, packed)).books()) == expected * 2


def test_without_blank_lines_a_line_is_a_book(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("first\nsecond\n")
    assert list(Corpus((path,)).books()) == [["first"], ["second"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "has no text"),
        (b"fine\n\xff\xfe\n", "line 2 is not UTF-8"),
        (b"one book\nof two lines\n\n", "is one book"),
    ],
)
def test_bad_text_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as refused:
        open_corpus([path]).held_out(0, 0.1)
    assert refused.value.field == "corpus" and "bad.txt" in refused.value.message


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.txt.gz"
    path.write_bytes(gzip.compress(b"some text\n" * 1000)[:-20])
    with pytest.raises(InvalidInputError, match=r"cut\.txt\.gz cannot be read"):
        list(Corpus((path,)).books())


def test_the_vocabulary_is_laid_out_as_t5s(words: Vocabulary, tmp_path: Path, materials: Path) -> None:
    assert (words.pad_id, words.eos_id, words.unk_id) == (0, 1, 2)
    assert words.size == PIECES + 100 and words.sentinel(0) == words.size - 1
    text = "the cat paints ☃ quietly"
    assert words.decode(words.encode(text)) == text, "byte pieces spell what no piece has"
    assert words.unk_id not in words.encode(text)
    again = tmp_path / "spiece.model"
    train_vocabulary(
        Corpus((materials / "vocabulary.txt",)), again, pieces=PIECES, seed=0, max_characters=100_000
    )
    assert Vocabulary.load(again).digest == words.digest


def test_too_many_pieces_are_refused(tmp_path: Path, materials: Path) -> None:
    corpus = Corpus((materials / "vocabulary.txt",))
    with pytest.raises(InvalidInputError, match="--pieces"):
        train_vocabulary(corpus, tmp_path / "x.model", pieces=5_000, seed=0, max_characters=100_000)
    assert not list(tmp_path.iterdir())


def test_token_files_hold_the_text_and_keep_whole_books_apart(
    materials: Path, words: Vocabulary, tokens: Tokens
) -> None:
    books = list(Corpus((materials / "corpus.txt",)).books())
    apart = set(tokens.facts["held_out_books"])
    assert len(apart) == 2
    for split, ids in (("held_out", tokens.held_out), ("train", tokens.train)):
        expected = [
            id
            for number, book in enumerate(books)
            if (number in apart) == (split == "held_out")
            for paragraph in book
            for id in words.encode(paragraph)
        ]
        assert ids.dtype == np.uint16 and ids.tolist() == expected


def test_token_files_are_the_same_each_time(
    materials: Path, words: Vocabulary, tokens: Tokens, tmp_path: Path
) -> None:
    corpus = Corpus((materials / "corpus.txt",))
    write_tokens(corpus, words, tmp_path / "again", seed=1, held_out_share=0.25)
    write_tokens(corpus, words, tmp_path / "other", seed=2, held_out_share=0.25)
    assert open_tokens(tmp_path / "again", words.digest).facts == tokens.facts
    assert open_tokens(tmp_path / "other", words.digest).digest != tokens.digest


def test_fewer_tokens_may_be_asked_for(materials: Path, words: Vocabulary, tmp_path: Path) -> None:
    corpus = Corpus((materials / "corpus.txt",))
    write_tokens(corpus, words, tmp_path / "few", seed=1, held_out_share=0.25, max_tokens=100)
    assert len(open_tokens(tmp_path / "few", words.digest).train) == 100


def test_damaged_token_files_are_refused(materials: Path, words: Vocabulary, tmp_path: Path) -> None:
    corpus = Corpus((materials / "corpus.txt",))
    folder = tmp_path / "tokens"
    write_tokens(corpus, words, folder, seed=1, held_out_share=0.25)
    with pytest.raises(InvalidInputError, match="another vocabulary"):
        open_tokens(folder, "0" * 64)
    content = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(content[:-2])
    with pytest.raises(InvalidInputError, match="tokenise again"):
        open_tokens(folder, words.digest)
    (folder / "tokens.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(InvalidInputError, match="does not describe"):
        open_tokens(folder, words.digest)


def test_an_epoch_sees_each_place_once_and_the_next_cuts_elsewhere() -> None:
    chunks = Chunks(np.arange(1000, dtype=np.uint16), 7, seed=5)
    per_epoch = chunks.per_epoch
    first, second = chunks.rows(0, per_epoch), chunks.rows(per_epoch, per_epoch)
    for epoch in (first, second):
        flat = np.sort(epoch.ravel())
        assert (flat == np.arange(flat[0], flat[0] + flat.size)).all()
    assert first[0, 0] % 7 != second[0, 0] % 7 and (first != second).any()
    assert (chunks.rows(per_epoch - 1, 2) == np.stack([first[-1], second[0]])).all()


def test_too_little_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 200 are needed"):
        Chunks(np.zeros(199, np.uint16), 100, 0)


def test_write_corpus_has_books(tmp_path: Path) -> None:
    assert len(list(Corpus((write_corpus(tmp_path / "c.txt", books=3),)).books())) == 3
