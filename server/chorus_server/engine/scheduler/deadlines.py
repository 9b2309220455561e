"""Which requests are out of time. Thread-safe, because both the engine's loop and the watchdog look."""

from __future__ import annotations

import heapq
import threading

from chorus_server.engine.scheduler.tickets import Ticket

_SPARE = 256


class Deadlines:
    """The tickets that have a deadline, until their outcome is decided. From then on nothing of them stays
    but a number in a heap: with deadlines of a minute, thousands of answered requests would fill the memory
    that the collector of garbage searches.

    Numbers of such tickets leave the heap when they reach the top or outnumber the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: dict[int, Ticket] = {}
        self._heap: list[tuple[float, int]] = []

    def add(self, ticket: Ticket) -> None:
        """Watch a ticket, if it has a deadline."""
        if ticket.deadline is None:
            return
        with self._lock:
            self._tickets[ticket.number] = ticket
            heapq.heappush(self._heap, (ticket.deadline, ticket.number))

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket, because its outcome is decided."""
        with self._lock:
            self._tickets.pop(ticket.number, None)
            if len(self._heap) > 2 * len(self._tickets) + _SPARE:
                self._heap = [entry for entry in self._heap if entry[1] in self._tickets]
                heapq.heapify(self._heap)

    def expired(self, now: float) -> list[Ticket]:
        """Unsettled tickets whose deadline is at or before `now`; each is returned once."""
        out = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                ticket = self._tickets.pop(heapq.heappop(self._heap)[1], None)
                if ticket is not None and not ticket.settled:
                    out.append(ticket)
        return out

    def next(self) -> float | None:
        """The earliest deadline of a ticket that is watched."""
        with self._lock:
            while self._heap and self._heap[0][1] not in self._tickets:
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None
