"""Admission: permits, bounds on the queue, and immediate refusals with Retry-After. Thread-safe."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.requests import Priority
from chorus_server.engine.scheduler.fair_queue import BATCH_SHARE
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.engine.scheduler.rates import ServiceRate
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.engine.stats import LISTED_TASKS, TenantQueue
from chorus_server.engine.work import work_units
from chorus_server.errors import ChorusError, ConflictError, OverloadedError, QuotaExceededError

_WAIT_SHARE, _SHARE = 0.6, 0.8
"""The shares of its deadline that a request may be expected to wait, and to take in all. The rest is a margin
for what an estimate cannot know. Under overload, every admitted request waits as long as is allowed."""


@dataclass(slots=True)
class _Queued:
    """The waiting requests of one tenant. `units` are the work units that they may cost, `urgent` counts
    those of class `interactive`, and `batch` is the work of the others."""

    weight: float = 1.0
    requests: int = 0
    units: int = 0
    urgent: int = 0
    work: float = 0.0
    batch: float = 0.0

    def count(self, ticket: Ticket, units: int, sign: int) -> None:
        """Add (1) or take away (-1) a request of so many work units."""
        self.requests += sign
        self.units += sign * units
        self.work += sign * ticket.work
        if ticket.origin.priority == "batch":
            self.batch += sign * ticket.work
        else:
            self.urgent += sign

    def before(self, priority: Priority, work: float, beside: float) -> float:
        """The tenant's work that is done before a request of a class that asks for `work`; `beside` of what
        waits came with it."""
        if priority == "batch":
            return self.work - beside
        mine = self.work - self.batch - beside
        return mine + min(self.batch, (mine + work) * BATCH_SHARE / (1 - BATCH_SHARE))


class AdmissionControl:
    """Permits by request id, and the counts that bound the queue.

    A request *waits* from its permit until its prefill step is dispatched. Closing the door and taking a
    permit exclude each other, so no request is forgotten after `close`.
    """

    def __init__(self, config: EngineConfig, journal: Journal) -> None:
        self._config = config
        self._journal = journal
        self._lock = threading.Condition()
        self._permits: dict[str, Ticket] = {}
        self._waiting: dict[str, int] = {}
        self._units = 0
        self._tasks: Counter[str] = Counter()
        self._lines: dict[str, _Queued] = {}
        self._work = 0.0
        self._rate = ServiceRate()
        self._closed: ChorusError | None = None

    @property
    def permits(self) -> int:
        return len(self._permits)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def waiting_units(self) -> int:
        """Work units that the waiting requests may cost."""
        return self._units

    def waiting_tasks(self) -> list[str]:
        """Some of the tasks of the waiting requests, `LISTED_TASKS` at most."""
        with self._lock:
            return list(islice(self._tasks, LISTED_TASKS))

    def queue(self) -> tuple[TenantQueue, ...]:
        """What waits, by tenant."""
        with self._lock:
            return tuple(TenantQueue(name, each.requests, each.units) for name, each in self._lines.items())

    @property
    def crowded(self) -> bool:
        """Whether requests are queueing, or the queue or a tenant's part of it is full."""
        waiting, own = len(self._waiting), self._config.max_queued_per_tenant
        most = self._config.max_queued_requests if own is None else min(own, self._config.max_queued_requests)
        return self._rate.stands or waiting >= most

    @property
    def closed(self) -> ChorusError | None:
        """Why nothing is admitted any more; None while requests are admitted."""
        return self._closed

    def admit(self, ticket: Ticket, now: float, beside: float = 0.0) -> None:
        """Take a permit and write the journal line.

        Args:
            beside: work of the same call that was admitted before. It is no reason to refuse this request.

        Raises:
            ChorusError: the error with which the door was closed (draining or dead).
            OverloadedError, QuotaExceededError: these say when to try again.
            ConflictError: a request with this id is under way.
        """
        with self._lock:
            self._check(ticket, now, beside)
            self._journal.accepted(ticket.key, ticket.origin.tenant)
            self._permits[ticket.key] = ticket
            units = self._waiting[ticket.key] = work_units(ticket.request)
            self._units += units
            if ticket.origin.task:
                self._tasks[ticket.origin.task] += 1
            line = self._lines.setdefault(ticket.origin.tenant, _Queued())
            line.weight = ticket.origin.weight
            line.count(ticket, units, 1)
            self._work += ticket.work

    def check(
        self,
        tenant: str,
        weight: float,
        seconds: float | None,
        now: float,
        coming: int = 0,
        steps: int = 1,
    ) -> None:
        """Refuse what `admit` would refuse from this tenant, whatever the request is and of whichever class.

        Args:
            seconds: from the request's arrival to its deadline.
            coming: how many requests will be submitted before it.
            steps: how many steps it takes at least.

        Raises:
            OverloadedError, QuotaExceededError: these say when to try again.
        """
        with self._lock:
            line = self._lines.get(tenant) or _Queued()
            self._check_bounds(line, "interactive", coming)
            if seconds is not None:
                each = self._work / max(1, len(self._waiting))
                mine = line.before("interactive", 0.0, 0.0)
                ahead = self._ahead(mine, weight, 0.0, line) + coming * each
                self._check_deadline(ahead, steps, seconds, now)

    def dispatched(self, tickets: Sequence[Ticket], now: float) -> None:
        """Note that a prefill step with these tickets was planned, so that they no longer wait."""
        with self._lock:
            before = self._rate.last_prefill
            work = sum(ticket.work for ticket in tickets)
            stood = 0.0
            for ticket in tickets:
                self._stop_waiting(ticket)
                if before is not None and ticket.queued <= before:
                    stood += ticket.work
            self._rate.prefilled(now, work, waited=2 * stood > work, left=bool(self._waiting))

    def release(self, ticket: Ticket) -> None:
        """Return the permit of a request that holds nothing any more."""
        with self._lock:
            self._stop_waiting(ticket)
            self._permits.pop(ticket.key, None)
            if not self._permits:
                self._rate.idle()
                self._lock.notify_all()

    def served(self, ticket: Ticket, service_seconds: float) -> None:
        """Note that a request was answered after `service_seconds` on the device."""
        with self._lock:
            self._rate.finished(service_seconds, ticket.steps)

    def service_seconds(self, ticket: Ticket) -> float:
        """Seconds that the request will take on the device, estimated from recent ones; 0 without a queue."""
        with self._lock:
            return self._rate.service_seconds(ticket.steps)

    def close(self, error: ChorusError) -> list[Ticket]:
        """Refuse everything from now on with `error`. A later call replaces the error, because death outranks
        draining. Returns the tickets under way."""
        with self._lock:
            self._closed = error
            return list(self._permits.values())

    def wait_empty(self, timeout_seconds: float | None) -> bool:
        """Block until no permit is taken."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._permits, timeout_seconds)

    def _stop_waiting(self, ticket: Ticket) -> None:
        units, task = self._waiting.pop(ticket.key, None), ticket.origin.task
        if units is None:
            return
        self._units -= units
        self._work -= ticket.work
        if task:
            self._tasks[task] -= 1
            if not self._tasks[task]:
                del self._tasks[task]
        line = self._lines[ticket.origin.tenant]
        line.count(ticket, units, -1)
        if not line.requests:
            del self._lines[ticket.origin.tenant]

    def _check(self, ticket: Ticket, now: float, beside: float) -> None:
        origin = ticket.origin
        if self._closed is not None:
            # A new error each time, because a raised exception collects tracebacks.
            raise type(self._closed)(
                self._closed.message, retry_after_seconds=self._closed.retry_after_seconds
            )
        if origin.request_id in self._permits:
            raise ConflictError(f"A request with id {origin.request_id} is under way.", field="request_id")
        line = self._lines.get(origin.tenant) or _Queued()
        self._check_bounds(line, origin.priority)
        if ticket.deadline is not None:
            mine = line.before(origin.priority, ticket.work, beside)
            ahead = self._ahead(mine, origin.weight, ticket.work, line)
            self._check_deadline(ahead, ticket.steps, ticket.deadline - now, now)

    def _check_bounds(self, line: _Queued, priority: Priority, coming: int = 0) -> None:
        mine, bound = line.requests, self._config.max_queued_per_tenant
        if bound is not None and mine >= bound:
            raise QuotaExceededError(
                f"{mine} requests of this tenant are waiting, and {bound} is the limit: send fewer at once.",
                retry_after_seconds=self._rate.retry_after(line.work),
            )
        most = self._config.max_queued_requests
        # A full queue must not lock out a tenant with little in it, nor interactive requests behind batch.
        spare = max(1, most // 8) if self._waiting else 0
        before = line.urgent if priority == "interactive" else mine
        if before < max(1, spare // (len(self._lines) + 1)):
            most += spare
        waiting = len(self._waiting) + coming
        if waiting >= most:
            raise OverloadedError(
                f"{waiting} requests are waiting, which is the limit: try again later.",
                retry_after_seconds=self._rate.retry_after(self._work),
            )

    def _check_deadline(self, ahead: float, steps: int, seconds: float, now: float) -> None:
        """Refuse a request that would probably not be answered in time."""
        wait, service = self._rate.wait_seconds(ahead, now), self._rate.service_seconds(steps)
        if not self._config.shed_unmeetable or (
            wait <= _WAIT_SHARE * seconds and wait + service <= _SHARE * seconds
        ):
            return
        raise OverloadedError(
            f"About {wait:.1f} s of work are waiting, too much for the deadline of {seconds:.3g} s: try "
            "again later or allow more time.",
            retry_after_seconds=self._rate.retry_after(self._work),
        )

    def _ahead(self, mine: float, weight: float, work: float, line: _Queued) -> float:
        """Work that is done before a request: its own tenant's (`mine`), and as much of each other tenant's
        as fair queueing serves until then."""
        if len(self._lines) <= 1:
            return mine
        turn = (mine + work) / weight
        return mine + sum(
            min(other.work, turn * other.weight) for other in self._lines.values() if other is not line
        )
