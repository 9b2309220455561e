"""A server of its own on a shared database, until stdin ends; run by the tests of several processes.

    python -m tests.server.api.replica_child DATA_DIR VOCABULARY SETTINGS [apart|deaf]

SETTINGS is a JSON object. Prints its URL. With `apart` it shares no leases: it takes every limit for its own
alone. With `deaf` it reads no change feed, and no time passes for what it remembers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.store import PromptStore
from tests.server.api.api_harness import ApiServer, stop_time


class Leasing(ApiServer):
    """A server that leases once a second, as a process does."""

    def background(self) -> list[Coroutine[Any, Any, None]]:
        return [*super().background(), self.services.budgets.follow()]


def main() -> None:
    folder, vocabulary, settings, *how = sys.argv[1:]
    given = json.loads(settings)
    with Leasing(
        Path(folder), Vocabulary.load(Path(vocabulary), extra_ids=4), follows=how != ["deaf"], **given
    ) as server:
        if how == ["apart"]:
            server.services.budgets._leasing._ask_store = PromptStore.in_memory().lease_budgets
        if how == ["deaf"]:
            stop_time(server)
        else:
            start_engine_jobs(server.services)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
