"""What tests of several rooms share: a real PostgreSQL server, started once a run, where it is installed."""

from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, binaries


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server; skips where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    server = PostgresServer(programs)
    yield server
    server.stop()
