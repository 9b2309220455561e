"""A vocabulary and token files, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.corpus import Corpus
from chorus_server.pretraining.data.tokens import Tokens, open_tokens, write_tokens
from tests.server.pretraining.pretraining_tools import vocabulary, write_corpus


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `spiece.model`, `corpus.txt` and `tokens/`."""
    folder = tmp_path_factory.mktemp("materials")
    corpus = Corpus((write_corpus(folder / "corpus.txt"),))
    write_tokens(corpus, vocabulary(folder), folder / "tokens", seed=1, held_out_share=0.25)
    return folder


@pytest.fixture(scope="session")
def words(materials: Path) -> Vocabulary:
    return vocabulary(materials)


@pytest.fixture(scope="session")
def tokens(materials: Path, words: Vocabulary) -> Tokens:
    return open_tokens(materials / "tokens", words.digest)


@pytest.fixture(scope="module", autouse=True)
def quickly(compiled_quickly: None) -> None:
    """For every test here."""
