"""Fixtures of the client's tests: a server in memory, and the same one on a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from chorus import Client
from chorus.cli import root
from tests.clients.fake_chorus import FakeChorus, on_loopback
from tests.server.api.conftest import api, patient_server, vocabulary

__all__ = ["api", "patient_server", "vocabulary"]
"""A real server for a module: tests use task names of their own."""

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own URL and keys do not leak into tests."""
    for name in ("CHORUS_URL", "CHORUS_API_KEY", "CHORUS_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> FakeChorus:
    return FakeChorus()


@pytest.fixture
def client(fake: FakeChorus) -> Iterator[Client]:
    """A client whose requests the fake answers, without a socket."""
    with Client(transport=httpx2.MockTransport(fake)) as made:
        yield made


@pytest.fixture
def url(fake: FakeChorus) -> Iterator[str]:
    """The fake on a real socket."""
    with on_loopback(fake) as served:
        yield served


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command against the fake; `lines` go to standard input."""
    monkeypatch.setenv("CHORUS_URL", url)

    def invoke(*words: str, lines: str | None = None) -> Result:
        result = CliRunner().invoke(root.chorus, list(words), input=lines)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def train(tmp_path: Path) -> str:
    """The name of a file of training data."""
    file = tmp_path / "train.tsv"
    file.write_text("sentence\tlabel\ngood\t1\n")
    return str(file)
