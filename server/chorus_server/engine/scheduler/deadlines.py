"""Which requests are out of time. Thread-safe, because both the engine's loop and the watchdog look."""

from __future__ import annotations

import heapq
import threading

from chorus_server.engine.scheduler.tickets import Ticket


class Deadlines:
    """A heap by deadline. Entries of settled requests are dropped when they reach the top or outnumber the
    rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Ticket]] = []
        self._compact_at = 256

    def add(self, ticket: Ticket) -> None:
        """Watch a ticket, if it has a deadline."""
        if ticket.deadline is None:
            return
        with self._lock:
            heapq.heappush(self._heap, (ticket.deadline, ticket.number, ticket))
            if len(self._heap) > self._compact_at:
                self._heap = [entry for entry in self._heap if not entry[2].settled]
                heapq.heapify(self._heap)
                self._compact_at = 2 * len(self._heap) + 256

    def expired(self, now: float) -> list[Ticket]:
        """Unsettled tickets whose deadline is at or before `now`; each is returned once."""
        out = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                ticket = heapq.heappop(self._heap)[2]
                if not ticket.settled:
                    out.append(ticket)
        return out

    def next(self) -> float | None:
        """The earliest deadline of an unsettled ticket."""
        with self._lock:
            while self._heap and self._heap[0][2].settled:
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None
