"""A server's store and scheduler for the code of datasets; only the device is in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_server.cluster import rows
from chorus_server.cluster.host import Host
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.settings import Settings
from tests.server.api.api_harness import ApiServer, train_vocabulary
from tests.server.api.conftest import patient_server

__all__ = ["patient_server"]  # a fixture


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return Vocabulary.load(train_vocabulary(tmp_path_factory.mktemp("vocabulary")), extra_ids=4)


@pytest.fixture
def server(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, vocabulary) as made:
        made.push("sentiment")
        yield made


@pytest.fixture
def beside(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """The server, whose process is that of `RowAnswers`."""

    class Beside(Host):
        def __init__(self, settings: Settings) -> None:
            assert server.loop is not None
            self.services, self._loop = server.services, server.loop
            self._turn, self._under_way = asyncio.Lock(), deque()

        def close(self) -> None:
            """The server goes on."""

    monkeypatch.setattr(rows, "Host", Beside)
    return server
