"""When the folder of an ended job goes, with a real store."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chorus_server.jobs.leftovers import remove_leftovers
from prompts_store.errors import StoreError
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import FINGERPRINT, TENANT

KEEP = timedelta(days=14)
SPEC = {"base_fingerprint": FINGERPRINT}


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore.open(tmp_path)


def folder_of(root: Path, job: str) -> Path:
    place = root / TENANT / job
    (place / "run-1").mkdir(parents=True)
    (place / "run-1" / "job.json").write_text("{}")
    return place


def ended(store: PromptStore, status: str) -> str:
    job = store.create_job(TENANT, "tuning", SPEC)
    if status == "cancelled":
        return store.cancel_job(TENANT, job.id).id
    claimed = store.claim_job("tuning", "a test", 30.0, FINGERPRINT)
    assert claimed is not None
    store.finish_job(claimed[1], status)  # type: ignore[arg-type]
    return job.id


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_can_be_resumed_is_kept_for_a_while(store: PromptStore, tmp_path: Path, status: str) -> None:
    root = tmp_path / "tuning"
    place = folder_of(root, ended(store, status))
    now = datetime.now(UTC)
    assert remove_leftovers(root, store, KEEP, now + KEEP - timedelta(minutes=1)) == 0 and place.exists()
    assert remove_leftovers(root, store, KEEP, now + KEEP + timedelta(minutes=1)) == 1 and not place.exists()


def test_a_job_that_succeeded_leaves_nothing_and_others_stay(store: PromptStore, tmp_path: Path) -> None:
    root = tmp_path / "tuning"
    good = folder_of(root, ended(store, "succeeded"))
    waiting = folder_of(root, store.create_job(TENANT, "tuning", SPEC).id)
    stranger = folder_of(root, "job-" + 24 * "0")
    late = datetime.now(UTC) + 100 * KEEP
    assert remove_leftovers(root, store, KEEP, late) == 1
    assert not good.exists() and waiting.exists() and stranger.exists()


def test_a_resumed_job_keeps_its_checkpoint(store: PromptStore, tmp_path: Path) -> None:
    root = tmp_path / "tuning"
    job = ended(store, "cancelled")
    place = folder_of(root, job)
    store.resume_job(TENANT, job)
    assert remove_leftovers(root, store, KEEP, datetime.now(UTC) + 2 * KEEP) == 0 and place.exists()


def test_what_a_purged_tenant_left_goes(store: PromptStore, tmp_path: Path) -> None:
    root = tmp_path / "tuning"
    store.create_tenant(TENANT)
    place = folder_of(root, ended(store, "failed"))
    store.delete_tenant(TENANT, grace_seconds=0)
    assert remove_leftovers(root, store, KEEP) == 0 and place.exists()
    store.purge_tenants()
    assert remove_leftovers(root, store, KEEP) == 1 and not place.exists()


def test_a_store_that_is_away_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        def get_job(self, tenant: str, job_id: str) -> Job:
            raise StoreError("the database does not answer")

    place = folder_of(tmp_path, "job-" + 24 * "1")
    with caplog.at_level(logging.WARNING):
        assert remove_leftovers(tmp_path, Away(), timedelta(0)) == 0
    assert place.exists() and "old checkpoints could not be removed now" in caplog.text
