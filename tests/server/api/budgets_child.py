"""Run by test_budget_processes.py: a server with a store of its own on a shared database, until stdin ends.

    python -m tests.server.api.budgets_child DATA_DIR VOCABULARY [apart]

Prints its URL. With `apart` it shares no leases: it takes every limit for its own alone.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chorus_server.model.vocabulary import Vocabulary
from prompts_store.store import PromptStore
from tests.server.api.api_harness import ApiServer


class Leasing(ApiServer):
    """A server that leases once a second, as a process does."""

    def background(self) -> list[Coroutine[Any, Any, None]]:
        return [*super().background(), self.services.budgets.follow()]


def main() -> None:
    folder, vocabulary, *how = sys.argv[1:]
    with Leasing(Path(folder), Vocabulary.load(Path(vocabulary), extra_ids=4)) as server:
        if how == ["apart"]:
            server.services.budgets._leasing._ask_store = PromptStore.in_memory().lease_budgets
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
