"""What jobs left on this machine's disk, removed once nobody can need it."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prompts_store.errors import NotFoundError, StoreError
from prompts_store.store import PromptStore

logger = logging.getLogger(__name__)


def remove_leftovers(folder: Path, store: PromptStore, keep: timedelta, now: datetime | None = None) -> int:
    """Remove the folders of jobs that succeeded (their process ended before it could), and of those that
    failed or were cancelled longer than `keep` ago: until then they can be resumed. A folder whose job the
    store does not know stays; a store that does not answer is logged.

    Returns:
        How many were removed.
    """
    now = now or datetime.now(UTC)
    removed = 0
    for place in folder.glob("*/job-*"):
        try:
            job = store.get_job(place.parent.name, place.name)
        except NotFoundError:
            continue
        except StoreError as error:
            logger.warning("old checkpoints are not removed now: %s", error.message)
            break
        if job.finished_at is None:
            continue
        if job.status == "succeeded" or now - job.finished_at > keep:
            shutil.rmtree(place, ignore_errors=True)
            removed += 1
    return removed
