"""Which tenants have requests now, and each one's fair share of the slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chorus_server.engine.scheduler.tickets import Ticket


class Shares:
    """Tenants with recent requests, and their weights.

    While only one tenant has requests, it may use every slot. As soon as there are two, the last free slots
    are kept for tenants below their share.
    """

    def __init__(self, memory_seconds: float, clock: Callable[[], float]) -> None:
        self._memory = memory_seconds
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}
        self._pruned_at = 0.0
        self._weights = 0.0

    def seen(self, tenant: str, weight: float) -> None:
        """Note that a request of the tenant arrived or left."""
        now = self._clock()
        self._weights += weight - self._seen.get(tenant, (0.0, 0.0))[1]
        self._seen[tenant] = (now, weight)
        if now - self._pruned_at >= min(1.0, self._memory):
            self._pruned_at = now
            self._seen = {name: at for name, at in self._seen.items() if now - at[0] <= self._memory}
            self._weights = sum(weight for _, weight in self._seen.values())

    def fair(self, tenant: str, total: float) -> float:
        """The tenant's fair part of `total`."""
        mine = self._seen.get(tenant, (0.0, 1.0))[1]
        return total * mine / max(self._weights, mine)

    @property
    def tenants(self) -> Iterable[str]:
        """Tenants with recent requests."""
        return self._seen.keys()

    @property
    def alone(self) -> bool:
        """Whether at most one tenant has recent requests."""
        return len(self._seen) <= 1

    def below(self, ticket: Ticket, held: int, total: int) -> bool:
        """Whether a tenant that holds `held` of `total` slots may take the slots that are kept free."""
        return self.alone or not held or held + ticket.fit.slots <= self.fair(ticket.origin.tenant, total)
