"""What is known of the store when a probe's answer comes late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from chorus_server.api.library import store_health
from chorus_server.api.library.store_health import StoreHealth
from prompts_store.errors import StoreError


class Store:
    """Reads hang until they are let go; whether it can be changed is said."""

    def __init__(self) -> None:
        self.writable = False
        self.goes_on, self.hung = threading.Event(), threading.Event()

    def check_readable(self) -> None:
        if self.goes_on.is_set():
            return
        self.hung.set()
        self.goes_on.wait(300)
        raise StoreError("it was away")

    def check_writable(self, patience_seconds: float) -> None:
        if not self.writable:
            raise StoreError("locked")


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.goes_on.set()


def test_what_a_read_found_long_ago_is_not_what_is_true_now(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = StoreHealth(store)  # type: ignore[arg-type]

    async def looked(patience: float) -> str | None:
        monkeypatch.setattr(store_health, "LOOK_SECONDS", patience)
        await health.look()
        report = health.report()
        return report and report["status"]

    async def looks() -> None:
        assert await looked(0.05) == "unreadable" and store.hung.wait(300)  # the control
        store.goes_on.set()
        store.writable = True
        assert await looked(300.0) is None
        assert health._reads._asked is not None
        await asyncio.wait({health._reads._asked})
        store.writable = False  # another program holds its lock
        assert await looked(300.0) == "unwritable"

    asyncio.run(looks())
    health.close()
