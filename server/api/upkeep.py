"""Collecting blobs that no version needs any more, in the background, for as long as the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from prompts_store.errors import ConflictError, StoreError
from prompts_store.upkeep.collector import CollectReport
from server.api.library.resolve import PromptLibrary
from server.api.metrics import ApiMetrics
from server.errors import ChorusError

LOG = logging.getLogger("chorus.upkeep")

SOON_SECONDS = 60.0
"""After a start and after a failure a collection comes this soon, where the interval is longer."""


class Upkeep:
    """Runs `PromptStore.collect` every so often, on the store's threads.

    Args:
        library: whose store is collected.
        interval_seconds: from the end of one collection to the next; 0 never collects.
        grace_seconds: how long a blob must have been unneeded.
        sleep: awaited between collections; a test's clock.
    """

    def __init__(
        self,
        library: PromptLibrary,
        metrics: ApiMetrics,
        interval_seconds: float,
        grace_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._library = library
        self._metrics = metrics
        self._interval = interval_seconds
        self._grace = grace_seconds
        self._sleep = sleep
        # An alert on its growth needs to have seen it at 0.
        metrics.collections.inc(0, "refused")

    async def run(self) -> None:
        """Collect until cancelled. A collection under way then ends on its thread."""
        if not self._interval:
            return
        wait = soon = min(self._interval, SOON_SECONDS)
        while True:
            await self._sleep(wait)
            wait = self._interval if await self.collect() else soon

    async def collect(self) -> bool:
        """Collect once; whether the next time is an interval away, else it is tried again soon.

        A failure is logged and counted, never raised. A refusal waits for an operator, not for a better
        moment: `other_store` and `mass_removal` of the store.
        """
        try:
            report = await self._library.save(self._library.store.collect, grace_seconds=self._grace)
        except ConflictError as error:
            LOG.error("nothing is collected: %s", error.message)
            self._metrics.collections.inc(1, "refused")
            return True
        except Exception as error:  # whatever it was, the next may work, and requests go on meanwhile
            known = isinstance(error, StoreError | ChorusError)
            LOG.warning(
                "collecting unneeded blobs failed; it is tried again: %s",
                error,
                exc_info=None if known else error,
            )
            self._metrics.collections.inc(1, "false")
            return False
        self._tell(report)
        return True

    def _tell(self, report: CollectReport) -> None:
        self._metrics.collections.inc(1, "true")
        self._metrics.collected_blobs.inc(report.blobs + report.orphans)
        self._metrics.collected_bytes.inc(report.freed_bytes)
        changed = report.blobs or report.orphans or report.files or report.temporary_files
        LOG.log(
            logging.INFO if changed else logging.DEBUG,
            "collected %d blobs of deleted versions and %d data files (%d bytes), %d blobs of unfinished "
            "uploads, %d temporary files; %d blobs are still being read",
            report.blobs,
            report.files,
            report.freed_bytes,
            report.orphans,
            report.temporary_files,
            report.held,
        )
