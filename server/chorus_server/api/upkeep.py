"""Removing what nothing needs any more, in the background, for as long as the server runs: what deleted
tenants had, and blobs that no version needs. Of all servers on one database, one does so at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from chorus_server.api.http.offload import Offload
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.metrics import ApiMetrics
from chorus_server.errors import ChorusError, shutting_down
from prompts_store.errors import ConflictError, StoreError
from prompts_store.upkeep.check_report import CheckReport, Problem
from prompts_store.upkeep.collector import CollectReport

LOG = logging.getLogger("chorus.upkeep")

SOON_SECONDS = 60.0
"""Seconds from a start or a failure to the next collection, if the interval is longer."""


@dataclass(frozen=True, slots=True)
class Collection:
    """How a collection of this process ended.

    Attributes:
        blobs: removed, with data files; `freed_bytes` are theirs.
        message: why nothing was collected; empty if it was.
    """

    at: datetime
    outcome: Literal["collected", "failed", "refused"]
    blobs: int = 0
    freed_bytes: int = 0
    message: str = ""


MOST_SHOWN = 10
"""Of each kind of problem that a check found: of more, how many they are."""


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """A check of the store by this process.

    Attributes:
        ended_at: None while it is under way.
        report: what it found, with up to `MOST_SHOWN` problems of a kind; None until then, and if it failed.
        found: how many problems of each kind there are.
        fence_fault: why row-level security does not stand; None if it does.
        message: why it failed.
    """

    started_at: datetime
    ended_at: datetime | None = None
    report: CheckReport | None = None
    found: Mapping[str, int] = field(default_factory=dict)
    fence_fault: str | None = None
    message: str = ""


class Upkeep:
    """Runs `PromptStore.purge_tenants` and `PromptStore.collect` every so often, on the store's threads.

    Args:
        library: its store is collected.
        interval_seconds: from the end of one collection, in whichever process, to the start of the next.
        grace_seconds: how long a blob must have been unneeded.
        audit_days: how long audit logs are kept whose tenant does not say; None for ever.
        sleep: awaited between collections; tests give their own clock.
        now: the time, for `last`.

    Attributes:
        last: the collection of this process that ended last.
        check: of this process the check of the store that began last.
    """

    def __init__(
        self,
        library: PromptLibrary,
        metrics: ApiMetrics,
        interval_seconds: float,
        grace_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        audit_days: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.last: Collection | None = None
        self.check: StoreCheck | None = None
        self._checking: asyncio.Task[None] | None = None
        # It reads everything: on a thread of its own, nobody waits for it.
        self._checker = Offload(1, 1, "store check")
        self._closing = False
        self._now = now
        self._library = library
        self._metrics = metrics
        self._interval = interval_seconds
        self._grace = grace_seconds
        self._audit_days = audit_days
        self._sleep = sleep
        self._soon = min(interval_seconds, SOON_SECONDS)
        # An alert on its increase needs to have seen it at 0.
        metrics.collections.inc(0, "refused")

    def close(self) -> None:
        """End a check that is under way, before its next blob."""
        self._closing = True
        self._checker.close()

    def begin_check(self) -> StoreCheck:
        """Begin to check the store, unless a check is under way. It changes nothing."""
        if self.check is None or self.check.ended_at is not None:
            self.check = StoreCheck(self._now())
            self._checking = asyncio.create_task(self._check(self.check))
        return self.check

    async def _check(self, begun: StoreCheck) -> None:
        try:
            ended = await self._checker.run(self._read_back, begun)
        except Exception as error:  # whatever failed, whoever asked is told that it did
            known = isinstance(error, StoreError | ChorusError)
            LOG.warning("the check of the store failed: %s", error, exc_info=None if known else error)
            ended = replace(begun, message=str(error) if known else type(error).__name__)
        self.check = replace(ended, ended_at=self._now())

    def _read_back(self, begun: StoreCheck) -> StoreCheck:
        def going_on() -> None:
            if self._closing:
                raise shutting_down()

        store = self._library.store
        report, shown = store.check(going_on=going_on), list[Problem]()
        found: Counter[str] = Counter()
        for problem in report.problems:
            found[problem.kind] += 1
            if found[problem.kind] <= MOST_SHOWN:
                shown.append(problem)
        report = replace(report, problems=tuple(shown))
        return replace(begun, report=report, found=found, fence_fault=store.fence_fault())

    async def run(self) -> None:
        """Purge and collect until cancelled. What is under way then ends on its thread."""
        wait = self._soon
        while True:
            await self._sleep(wait)
            wait, turn = await self._claim()
            wait = min(wait, self._interval) or await self._work(turn)

    async def _claim(self) -> tuple[float, datetime | None]:
        """Seconds until upkeep is due in any process; 0 if it is, and this process's to do, with its turn."""
        try:
            return await self._library.write(self._library.store.claim_upkeep, self._interval)
        except (StoreError, ChorusError) as error:
            LOG.warning("it is not known whether a collection is due; it is asked again: %s", error)
            return self._soon, None

    async def _work(self, turn: datetime | None) -> float:
        """Purge and collect; the seconds to wait then."""
        purged = await self.purge()
        wait = self._interval if await self.collect() and purged else self._soon
        # If this fails, the claim ends by itself.
        with suppress(StoreError, ChorusError):
            await self._library.write(self._library.store.end_upkeep, turn, wait)
        return wait

    async def purge(self) -> bool:
        """Remove what tenants had that were deleted longer ago than their grace period; whether that could be
        done. A failure is logged, never raised."""
        try:
            report = await self._library.write(self._library.store.purge_tenants)
        except Exception as error:
            known = isinstance(error, StoreError | ChorusError)
            LOG.warning(
                "removing what deleted tenants had failed; it is tried again: %s",
                error,
                exc_info=None if known else error,
            )
            return False
        for tenant in report.purged:
            LOG.info("what the deleted tenant %s had is removed", tenant)
        return True

    async def collect(self) -> bool:
        """Collect once. Returns whether the next collection is due after the interval; if not, it is due
        soon.

        A failure is logged and counted, never raised. A refusal by the store (`other_store`, `mass_removal`)
        needs an operator, so trying again soon would not help.
        """
        try:
            report = await self._library.save(
                self._library.store.collect, grace_seconds=self._grace, audit_days=self._audit_days
            )
        except ConflictError as error:
            LOG.error("nothing is collected: %s", error.message)
            self._metrics.collections.inc(1, "refused")
            self.last = Collection(self._now(), "refused", message=error.message)
            return True
        except Exception as error:  # whatever failed, the next collection may work, and requests go on
            known = isinstance(error, StoreError | ChorusError)
            LOG.warning(
                "collecting unneeded blobs failed and will be tried again: %s",
                error,
                exc_info=None if known else error,
            )
            self._metrics.collections.inc(1, "false")
            message = str(error) if known else type(error).__name__
            self.last = Collection(self._now(), "failed", message=message)
            return False
        self._tell(report)
        return True

    def _tell(self, report: CollectReport) -> None:
        removed = report.blobs + report.orphans + report.files
        self.last = Collection(self._now(), "collected", removed, report.freed_bytes)
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
