from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, Gate, train_vocabulary


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return Vocabulary.load(train_vocabulary(tmp_path_factory.mktemp("vocabulary")), extra_ids=4)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """One open server for a module; tests use task names of their own."""
    with ApiServer(tmp_path_factory.mktemp("data"), vocabulary) as server:
        yield server
        assert server.engine.wait_idle(300)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def gate() -> Gate:
    return Gate()
