"""What `chorus serve` writes to its log: its own lines, and of libraries only what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from chorus_server.log import set_log_levels

NAMES = ("chorus", "chorus_server", "prompts_store", "uvicorn")


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", *NAMES)]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("level", "own", "libraries"),
    [
        ("debug", logging.DEBUG, logging.DEBUG),
        ("info", logging.INFO, logging.WARNING),
        ("warning", logging.WARNING, logging.WARNING),
        ("error", logging.ERROR, logging.ERROR),
    ],
)
def test_a_library_is_heard_from_warning_up(level: str, own: int, libraries: int) -> None:
    set_log_levels(level)
    for name in ("chorus.access", "chorus_server.engine.thread.engine", "uvicorn.error"):
        assert logging.getLogger(name).getEffectiveLevel() == own
    for name in ("jax._src.xla_bridge", "alembic.runtime.migration", "orbax"):
        assert logging.getLogger(name).getEffectiveLevel() == libraries
