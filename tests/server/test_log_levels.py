"""What `chorus serve` writes to its log: its own lines, and of libraries only what went wrong."""

from __future__ import annotations

import logging

import pytest

from chorus_server.log import log_levels


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
    ours = ("chorus.access", "chorus_server.engine.thread.engine", "uvicorn.error")
    others = ("jax._src.xla_bridge", "alembic.runtime.migration", "orbax")

    def levels() -> list[int]:
        return [logging.getLogger(name).getEffectiveLevel() for name in (*ours, *others)]

    before = levels()
    with log_levels(level):
        assert levels() == [own] * len(ours) + [libraries] * len(others)
    assert levels() == before, "whoever runs a command in its own process has its log as it was"
