"""Weighted fair queueing over tenants by start tags (Goyal, Vin and Cheng 1996, "Start-time Fair Queuing",
section 2).

Each tenant with waiting requests has a start tag in virtual time. The tenant with the smallest tag goes
first; taking a request of cost c moves its tenant's tag by c / weight. A tenant that comes back starts at the
tag of the request served last, so nobody saves up credit while idle. If two tenants always have requests
waiting, the service that they receive differs by at most `largest cost / weight` of each, whatever they send.

Within a tenant the same is done between its two classes with the weights 9 and 1: an interactive request that
finds none of its class waiting goes before all batch requests, and batch requests get at least a tenth of
the tenant's service. Within a class, first come, first served.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chorus_server.engine.requests import Priority

T = TypeVar("T")

BATCH_SHARE = 0.1
"""The least share of a tenant's service that its batch requests get while some are waiting."""

_CLASSES: dict[Priority, float] = {"interactive": 1 - BATCH_SHARE, "batch": BATCH_SHARE}


@dataclass(eq=False, slots=True)
class Waiting(Generic[T]):
    """One waiting request.

    Attributes:
        number: order of arrival; also breaks ties.
        cost: padded tokens of work.
        start: virtual time of its tenant's turn, filled in by `in_order`.
    """

    item: T
    key: str
    tenant: str
    weight: float
    priority: Priority
    cost: float
    number: int
    start: float = 0.0


@dataclass(slots=True)
class _Line(Generic[T]):
    """The waiting requests of one class of a tenant; `start` is the tag of its next one."""

    start: float = 0.0
    order: list[int] = field(default_factory=list)
    waiting: dict[int, Waiting[T]] = field(default_factory=dict)


@dataclass(slots=True)
class _Tenant(Generic[T]):
    """A tenant with waiting requests; `now` is the virtual time between its classes."""

    name: str
    start: float
    number: int
    now: float = 0.0
    lines: dict[Priority, _Line[T]] = field(default_factory=lambda: {name: _Line() for name in _CLASSES})

    @property
    def place(self) -> tuple[float, int, str]:
        return (self.start, self.number, self.name)

    @property
    def empty(self) -> bool:
        return not any(line.order for line in self.lines.values())

    def add(self, waiting: Waiting[T]) -> None:
        line = self.lines[waiting.priority]
        if not line.order:
            line.start = max(line.start, self.now)
        insort(line.order, waiting.number)
        line.waiting[waiting.number] = waiting

    def drop(self, priority: Priority, number: int, *, served: bool) -> Waiting[T]:
        line = self.lines[priority]
        del line.order[bisect_left(line.order, number)]
        waiting = line.waiting.pop(number)
        if served:
            self.now = max(self.now, line.start)
            line.start += waiting.cost / _CLASSES[priority]
        return waiting

    def in_order(self) -> Iterator[Waiting[T]]:
        """Its requests in the order in which they would be served if no other arrived."""
        tags = {name: line.start for name, line in self.lines.items() if line.order}
        served = dict.fromkeys(tags, 0)
        while tags:
            priority = min(tags, key=tags.__getitem__)  # interactive is first where they are equal
            line = self.lines[priority]
            waiting = line.waiting[line.order[served[priority]]]
            yield waiting
            served[priority] += 1
            tags[priority] += waiting.cost / _CLASSES[priority]
            if served[priority] == len(line.order):
                del tags[priority]


class FairQueue(Generic[T]):
    """The queue. Every operation takes O(log n) comparisons."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant[T]] = {}
        self._turns: list[tuple[float, int, str]] = []
        self._finished: dict[str, float] = {}
        self._keys: dict[str, tuple[str, Priority, int]] = {}
        self._now = 0.0
        self._largest = 0.0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def waiting(self, tenant: str) -> int:
        """How many requests of a tenant wait."""
        owner = self._tenants.get(tenant)
        return 0 if owner is None else sum(len(line.order) for line in owner.lines.values())

    @property
    def virtual_time(self) -> float:
        """Start tag of the request served last."""
        return self._now

    @property
    def largest(self) -> float:
        """The largest cost / weight since the queue was last empty. One tenant may get this far ahead of
        another."""
        return self._largest

    def push(
        self,
        item: T,
        *,
        key: str,
        tenant: str,
        weight: float,
        priority: Priority,
        cost: float,
        number: int,
    ) -> None:
        """Add a request. A request that comes back passes its old `number` and gets its old place."""
        owner = self._tenants.get(tenant)
        if owner is None:
            start = max(self._now, self._finished.pop(tenant, 0.0))
            owner = self._tenants[tenant] = _Tenant(tenant, start, number)
            insort(self._turns, owner.place)
        owner.add(Waiting(item, key, tenant, weight, priority, cost, number))
        self._keys[key] = (tenant, priority, number)
        self._largest = max(self._largest, cost / weight)

    def in_order(self) -> Iterator[Waiting[T]]:
        """Iterate over the waiting requests in the order in which they would be served if no other arrived.

        Do not change the queue while iterating.
        """
        advanced: list[tuple[float, int, str, Iterator[Waiting[T]], Waiting[T]]] = []
        following = 0
        while following < len(self._turns) or advanced:
            fresh = self._turns[following] if following < len(self._turns) else None
            if fresh is not None and (not advanced or fresh < advanced[0][:3]):
                start, number, name = fresh
                rest = self._tenants[name].in_order()
                waiting, following = next(rest), following + 1
            else:
                start, number, name, rest, waiting = heapq.heappop(advanced)
            waiting.start = start
            yield waiting
            if (then := next(rest, None)) is not None:
                after = start + waiting.cost / waiting.weight
                heapq.heappush(advanced, (after, number, name, rest, then))

    def head(self) -> Waiting[T] | None:
        """The request that is served next."""
        return next(self.in_order(), None)

    def take(self, key: str, *, turn: float | None = None) -> T:
        """Serve a request; its tenant pays. If it is served along with the request whose turn it was, `turn`
        is that request's start tag. Raises KeyError if it is not waiting."""
        owner, waiting = self._pop(key, served=True)
        self._now = max(self._now, owner.start if turn is None else turn)
        self._move(owner, owner.start + waiting.cost / waiting.weight)
        return waiting.item

    def forgo(self, tenant: str) -> None:
        """A tenant let another go first, and saves up no credit by that."""
        owner = self._tenants.get(tenant)
        if owner is not None and owner.start < self._now:
            self._move(owner, self._now)

    def remove(self, key: str) -> T:
        """Remove a request that was not served; nobody pays. Raises KeyError if it is not waiting."""
        owner, waiting = self._pop(key, served=False)
        self._move(owner, owner.start)
        return waiting.item

    def _pop(self, key: str, *, served: bool) -> tuple[_Tenant[T], Waiting[T]]:
        name, priority, number = self._keys.pop(key)
        owner = self._tenants[name]
        return owner, owner.drop(priority, number, served=served)

    def _move(self, owner: _Tenant[T], start: float) -> None:
        del self._turns[bisect_left(self._turns, owner.place)]
        owner.start = start
        if not owner.empty:
            insort(self._turns, owner.place)
            return
        del self._tenants[owner.name]
        if start > self._now:
            self._finished[owner.name] = start
        if not self._keys:
            self._forget()
        elif len(self._finished) > 2 * len(self._tenants) + 64:
            self._finished = {name: tag for name, tag in self._finished.items() if tag > self._now}

    def _forget(self) -> None:
        """Start again with an empty queue: reset virtual time and forget all tenants."""
        self._finished.clear()
        self._now = 0.0
        self._largest = 0.0
