"""Removes what jobs left on this machine's disk, once nobody can need it."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prompts_store.errors import NotFoundError, StoreError
from prompts_store.store import PromptStore

logger = logging.getLogger(__name__)


def remove_leftovers(folder: Path, store: PromptStore, keep: timedelta, now: datetime | None = None) -> int:
    """Remove the folders of jobs that succeeded, if their process ended before it removed them, and of jobs
    that failed or were cancelled longer than `keep` ago, until when they can be resumed, and of purged
    tenants. Other folders of jobs that the store does not know stay. If the store does not answer, that is
    logged.

    Returns:
        How many were removed.
    """
    now = now or datetime.now(UTC)
    removed = 0
    for place in folder.glob("*/job-*"):
        try:
            if not _is_over(store, place, keep, now):
                continue
        except StoreError as error:
            logger.warning("old checkpoints could not be removed now: %s", error.message)
            break
        shutil.rmtree(place, ignore_errors=True)
        removed += 1
    return removed


def _is_over(store: PromptStore, place: Path, keep: timedelta, now: datetime) -> bool:
    """Whether nobody can need a job's folder."""
    tenant = place.parent.name
    try:
        job = store.get_job(tenant, place.name)
    except NotFoundError:
        return store.was_purged(tenant)
    if job.finished_at is None:
        return False
    return job.status == "succeeded" or now - job.finished_at > keep
