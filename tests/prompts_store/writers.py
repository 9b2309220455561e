"""Several stores on one database, for tests of what happens when they write at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prompts_store import PromptStore

WRITERS = 3


@contextmanager
def writing_processes(folder: Path, url: str | None) -> Iterator[list[PromptStore]]:
    """Writers, each with connections and a lock of its own, as other processes have.

    They wait for each other as long as it takes: SQLite lets whoever asks at the right moment go first, and
    on a slow disk the others come to nothing for longer than a server would wait.
    """
    stores = [PromptStore.open(folder, database_url=url) for _ in range(WRITERS)]
    for store in stores:
        store._database.patience_seconds = 1200
    try:
        yield stores
    finally:
        for store in stores:
            store.close()
