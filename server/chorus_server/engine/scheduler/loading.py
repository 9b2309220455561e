"""Requests whose prompts are not in memory. Each prompt is fetched once, a few at a time, fairly between
tenants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.requests import PromptHandle
from chorus_server.engine.scheduler.fair_queue import FairQueue
from chorus_server.engine.scheduler.tickets import Ticket, TicketPhase
from chorus_server.errors import ChorusError, InternalError

Fetch = Callable[[PromptHandle], None]
"""Starts a fetch. When it ends, `Loading.loaded` or `failed` is called on the engine's thread."""


class Loading:
    """Tickets that wait for prompts, and the fetches under way.

    A ticket starts all its fetches at once or none, so two tickets never wait for each other. No new ticket
    starts while every loader is busy, or while prompts held for waiting requests fill the host tier.

    Args:
        ready: called with a ticket whose prompts are all present and held.
    """

    def __init__(
        self, host: HostPromptTier, fetch: Fetch, max_fetches: int, ready: Callable[[Ticket], None]
    ) -> None:
        self._host = host
        self._fetch = fetch
        self._max_fetches = max_fetches
        self._ready = ready
        self._backlog: FairQueue[Ticket] = FairQueue()
        self._flights: dict[str, list[Ticket]] = {}
        self._started = 0

    @property
    def tickets(self) -> int:
        return len(self._backlog) + self._started

    @property
    def fetches(self) -> int:
        return len(self._flights)

    def begin(self, ticket: Ticket) -> None:
        """Fetch the prompts that the ticket lacks. It may be ready before this returns."""
        ticket.phase = TicketPhase.LOADING
        missing = [p for p in ticket.fit.prompts if p.digest not in self._host]
        if all(prompt.digest in self._flights for prompt in missing):
            self._start(ticket)
            return
        # A ticket that holds prompts while it waits could wait for ever, because these may be what fills the
        # host tier.
        drop_holds(self._host, ticket)
        self._backlog.push(
            ticket,
            key=ticket.key,
            tenant=ticket.origin.tenant,
            weight=ticket.origin.weight,
            priority=ticket.origin.priority,
            cost=float(sum(prompt.length for prompt in missing)),
            number=ticket.number,
        )
        self.pump()

    def loaded(self, digest: str, values: Any) -> None:
        """A fetch succeeded; `values` are checked and in the compute dtype."""
        waiters = self._flights.pop(digest)
        # Hold it before putting it, because a full tier must not drop it at once.
        for ticket in waiters:
            self._host.hold(digest)
            ticket.holds.append(digest)
        self._host.put(digest, values)
        for ticket in waiters:
            ticket.awaiting.discard(digest)
            self._finish(ticket)
        self.pump()

    def failed(self, digest: str) -> list[Ticket]:
        """A fetch failed. Returns the tickets that needed it, which no longer wait here."""
        waiters = self._flights.pop(digest)
        for ticket in waiters:
            self.abandon(ticket)
        self.pump()
        return waiters

    def abandon(self, ticket: Ticket) -> None:
        """Stop waiting for this ticket. Its fetches go on, as other tickets may need them."""
        if ticket.key in self._backlog:
            self._backlog.remove(ticket.key)
            return
        self._started -= 1
        for digest in ticket.awaiting:
            if digest in self._flights and ticket in self._flights[digest]:
                self._flights[digest].remove(ticket)
        ticket.awaiting.clear()

    def pump(self) -> None:
        """Start fetching for as many waiting tickets as there is room for."""
        while len(self._flights) < self._max_fetches and (waiting := self._backlog.head()) is not None:
            if self._host.held_bytes >= self._host.budget_bytes and self._host.held_bytes > 0:
                return
            self._start(self._backlog.take(waiting.key))

    def _start(self, ticket: Ticket) -> None:
        self._started += 1
        fetches = []
        for prompt in ticket.fit.prompts:
            digest = prompt.digest
            if digest in self._host:
                if digest not in ticket.holds:
                    self._host.hold(digest)
                    ticket.holds.append(digest)
                continue
            ticket.awaiting.add(digest)
            if digest not in self._flights:
                self._flights[digest] = []
                fetches.append(prompt)
            self._flights[digest].append(ticket)
        for prompt in fetches:
            self._fetch(prompt)
        self._finish(ticket)

    def _finish(self, ticket: Ticket) -> None:
        if not ticket.awaiting:
            self._started -= 1
            self._ready(ticket)


def drop_holds(host: HostPromptTier, ticket: Ticket) -> None:
    """Release the host copies of a ticket whose prompts are on the device, or that is over."""
    for digest in ticket.holds:
        host.release(digest)
    ticket.holds.clear()


def load_error(digest: str, error: BaseException) -> ChorusError:
    """The error for the requests that needed a prompt."""
    if isinstance(error, ChorusError):
        return error
    return InternalError(
        f"Prompt {digest[:12]} could not be read: the server's log says why.", code="prompt_unreadable"
    )
