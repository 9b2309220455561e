"""Two runners and one job: whoever's lease ran out writes nothing more, however late it wakes up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from prompts_store.testing import FakeClock
from tests.server.api.api_harness import eventually
from tests.server.tuning.jobs.service_tools import (
    FINGERPRINT,
    TENANT,
    Watcher,
    document,
    done,
    events,
    finished,
    jsonl,
    running,
    submit,
    until,
    upload,
)

pytestmark = pytest.mark.usefixtures("compile_cache")


class Frozen:
    """The store of a process that stands still: no lease is renewed, and its looks come back empty."""

    def __init__(self, store: PromptStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def renew_lease(self, *_: Any) -> Any:
        raise StoreError("The process stands still.")


def test_a_runner_that_wakes_up_too_late_writes_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    store = PromptStore.open(tmp_path, clock=clock)
    file = upload(store, jsonl())
    whole = done(store, tmp_path, document(file, task="whole"))
    late, prompt = Watcher(hold_after=9), Watcher()
    job = submit(store, document(file))
    frozen: Any = Frozen(store)
    with running(frozen, tmp_path, watcher=late):
        assert late.reached.wait(300)
        until(store, job, lambda found: found.progress.get("checkpoint_step", 0) >= 2)
        assert store.claim_job("tuning", "other", 20, FINGERPRINT) is None, "the lease holds while it lasts"
        clock.advance(100)
        with running(store, tmp_path, watcher=prompt):
            over = finished(store, job)
        assert over.status == "succeeded" and over.attempt == 2 and prompt.made < 6
        written = events(store, job)
        late.release.set()
        eventually(lambda: bool(late.endings))
    assert late.endings == ["lost"] and prompt.endings == ["succeeded"]
    assert events(store, job) == written
    assert over.result["prompts"][0]["digest"] == whole.result["prompts"][0]["digest"]
    assert len(store.list_versions(TENANT, "letters").items) == 1
