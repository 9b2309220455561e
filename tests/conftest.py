"""What tests of several rooms share: compiled programs, and PostgreSQL where it is installed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer, binaries


@pytest.fixture(scope="session")
def compiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs of servers and jobs: shared by all processes where the test command says where."""
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(kept) if kept else tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """XLA optimises little of what a module's tests and their children compile, which halves its time: for
    what holds of any right code. What is promised of a server's own code, bits above all, is tested without.
    """
    import jax

    update: Any = jax.config.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        update("jax_disable_most_optimizations", True)
        jax.clear_caches()  # JAX's own do not ask how a program was compiled
        yield
        update("jax_disable_most_optimizations", False)
        jax.clear_caches()


@pytest.fixture(scope="session")
def few_shapes() -> dict[str, str]:
    """Settings with which the base that ships compiles in seconds; an operator gives none."""
    return {
        "input_lengths": "96", "batch_rows": "8", "blocks": "96x16x8", "score_buckets": "8x8",
        "layout": "scanned",
    }  # fmt: skip


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server; skips where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    server = PostgresServer(programs)
    yield server
    server.stop()
