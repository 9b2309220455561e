"""The door: permits, bounds on what waits, refusals at once with Retry-After. Thread-safe."""

from __future__ import annotations

import threading
from collections import Counter

from server.engine.config import EngineConfig
from server.engine.requests import Origin
from server.engine.scheduler.journal import Journal
from server.engine.scheduler.rates import ServiceRate
from server.engine.scheduler.tickets import Ticket
from server.errors import ChorusError, ConflictError, OverloadedError, QuotaExceededError


class Admission:
    """Permits by request id, and the counts that bound the queue.

    A request *waits* from its permit until its prefill is dispatched. Closing the door and taking a permit
    exclude each other, so after `close` no request is forgotten.
    """

    def __init__(self, config: EngineConfig, journal: Journal) -> None:
        self._config = config
        self._journal = journal
        self._lock = threading.Condition()
        self._permits: dict[str, Ticket] = {}
        self._waiting: set[str] = set()
        self._by_tenant: Counter[str] = Counter()
        self._rate = ServiceRate()
        self._closed: ChorusError | None = None

    @property
    def permits(self) -> int:
        return len(self._permits)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def closed(self) -> ChorusError | None:
        """Why nothing is admitted any more, if so."""
        return self._closed

    def admit(self, ticket: Ticket, now: float) -> None:
        """Take a permit and write the journal line.

        Raises:
            ChorusError: whatever closed the door (draining, dead).
            OverloadedError, QuotaExceededError: with when to try again.
            ConflictError: a request with this id is under way.
        """
        with self._lock:
            self._check(ticket, now)
            self._journal.accepted(ticket.key, ticket.origin.tenant)
            self._permits[ticket.key] = ticket
            self._waiting.add(ticket.key)
            self._by_tenant[ticket.origin.tenant] += 1

    def dispatched(self, ticket: Ticket) -> None:
        """The request no longer waits."""
        with self._lock:
            self._stop_waiting(ticket)

    def release(self, ticket: Ticket) -> None:
        """Everything the request held is free."""
        with self._lock:
            self._stop_waiting(ticket)
            self._permits.pop(ticket.key, None)
            if not self._permits:
                self._lock.notify_all()

    def served(self, now: float, service_seconds: float) -> None:
        """One sample for the service rate."""
        with self._lock:
            self._rate.finished(now, service_seconds)

    def least_service_seconds(self) -> float:
        """What even a lucky request takes on the device, lately."""
        with self._lock:
            return self._rate.least_service_seconds()

    def close(self, error: ChorusError) -> list[Ticket]:
        """Refuse everything from now on with `error` (the first one stays unless a later one is given: death
        outranks draining). Returns the tickets under way."""
        with self._lock:
            self._closed = error
            return list(self._permits.values())

    def wait_empty(self, timeout_seconds: float | None) -> bool:
        """Block until no permit is taken."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._permits, timeout_seconds)

    def _stop_waiting(self, ticket: Ticket) -> None:
        if ticket.key in self._waiting:
            self._waiting.remove(ticket.key)
            tenant = ticket.origin.tenant
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]

    def _check(self, ticket: Ticket, now: float) -> None:
        origin = ticket.origin
        if self._closed is not None:
            # A new one each time: a raised exception collects tracebacks.
            raise type(self._closed)(
                self._closed.message, retry_after_seconds=self._closed.retry_after_seconds
            )
        if origin.request_id in self._permits:
            raise ConflictError(f"A request with id {origin.request_id} is under way.", field="request_id")
        self._check_bounds(origin, now)
        if self._config.shed_unmeetable and origin.deadline_seconds is not None:
            self._check_deadline(origin, origin.deadline_seconds, now)

    def _check_bounds(self, origin: Origin, now: float) -> None:
        mine, bound = self._by_tenant[origin.tenant], self._config.max_queued_per_tenant
        if bound is not None and mine >= bound:
            raise QuotaExceededError(
                f"{mine} requests of this tenant are waiting, at most {bound} may: send fewer at once.",
                retry_after_seconds=self._rate.retry_after(mine, now),
            )
        most = self._config.max_queued_requests
        # A full queue must not shut out a tenant that has nothing in it.
        if not mine:
            most += max(1, most // 8) if self._waiting else 0
        if len(self._waiting) >= most:
            raise OverloadedError(
                f"{len(self._waiting)} requests are waiting, which is all the server takes: try again later.",
                retry_after_seconds=self._rate.retry_after(len(self._waiting), now),
            )

    def _check_deadline(self, origin: Origin, deadline_seconds: float, now: float) -> None:
        rate = self._rate.per_second(now)
        if rate is None:
            return
        # Under fair queueing a tenant waits for its own requests and as many of each other tenant.
        mine, tenants = self._by_tenant[origin.tenant] + 1, max(1, len(self._by_tenant))
        expected = min(len(self._waiting), mine * tenants) / rate
        if expected > 2 * deadline_seconds:
            raise OverloadedError(
                f"About {expected:.1f} s of work are waiting, more than the deadline of "
                f"{deadline_seconds:g} s allows: try again later or allow more time.",
                retry_after_seconds=self._rate.retry_after(len(self._waiting), now),
            )
