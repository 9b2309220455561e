from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import STORE_SECONDS, ApiServer, Gate, train_vocabulary


@pytest.fixture(scope="module", autouse=True)
def patient_server() -> Iterator[None]:
    """A second in which a busy machine does not come to the store's answer is no trouble of the store's.
    Tests of such trouble set how long it may take."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in STORE_SECONDS:
            patch.setattr(module, name, 300.0)
        yield


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
