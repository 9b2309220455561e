from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
from click.testing import CliRunner

from tests.end_to_end.served import TINY, Served
from tests.places import SHARED


def train_vocabulary(folder: Path) -> Path:
    """63 pieces: what the tiny model's 163 leave beside 100 sentinels."""
    corpus = folder / "corpus.txt"
    words = [
        "a",
        "an",
        "the",
        "good",
        "bad",
        "film",
        "was",
        "is",
        "it",
        "yes",
        "no",
        "rain",
        "sun",
        "cat",
        "dog",
    ]
    words += ["we", "saw", "they", "ran", "home", "now", "then"]
    lines = [" ".join(words[(i * 5 + j * j) % len(words)] for j in range(9)) for i in range(400)]
    corpus.write_text("\n".join([*lines, "a b c d e f g h i j k l m n o p q r s t u v w x y z"] * 2))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=63,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        minloglevel=2,
    )
    return folder / "spiece.model"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 1.1 with two layers of odd widths, made by the command that makes such models."""
    from chorus_server.checkpoints_cli import models

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = train_vocabulary(folder)
    target = folder / "model"
    arguments = ["init", str(target), "--size", "tiny", "--to", "hf", "--vocabulary", str(vocabulary)]
    result = CliRunner().invoke(models, arguments)
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture(scope="session")
def compile_cache(compiled_folder: Path) -> Path:
    """Shared by the server processes: the second starts in a moment."""
    return compiled_folder


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, compile_cache: Path
) -> Iterator[Served]:
    """A server of the tiny model, ready."""
    with Served(
        tmp_path_factory.mktemp("data"), model=tiny_model, compile_cache_dir=compile_cache, **TINY
    ) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large files beside the repository; skips where it is absent."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"the large files are not at {SHARED}: set CHORUS_SHARED")
    return SHARED
