"""Which tenants are about, and what part of the slots is fair for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from server.engine.scheduler.tickets import Ticket


class Shares:
    """Tenants seen lately and their weights.

    While only one tenant is about it may take everything; a second one makes the reservation of the last free
    slots count.
    """

    def __init__(self, memory_seconds: float, clock: Callable[[], float]) -> None:
        self._memory = memory_seconds
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}
        self._pruned_at = 0.0
        self._weights = 0.0

    def seen(self, tenant: str, weight: float) -> None:
        """A request of the tenant arrived, or left."""
        now = self._clock()
        self._weights += weight - self._seen.get(tenant, (0.0, 0.0))[1]
        self._seen[tenant] = (now, weight)
        if now - self._pruned_at >= min(1.0, self._memory):
            self._pruned_at = now
            self._seen = {name: at for name, at in self._seen.items() if now - at[0] <= self._memory}
            self._weights = sum(weight for _, weight in self._seen.values())

    def fair(self, tenant: str, total: int) -> float:
        """The tenant's part of `total`."""
        mine = self._seen.get(tenant, (0.0, 1.0))[1]
        return total * mine / max(self._weights, mine)

    @property
    def tenants(self) -> Iterable[str]:
        """Those seen lately."""
        return self._seen.keys()

    @property
    def alone(self) -> bool:
        """Whether at most one tenant is about."""
        return len(self._seen) <= 1

    def below(self, ticket: Ticket, held: int, total: int) -> bool:
        """Whether a tenant that holds `held` of `total` slots may take those kept in reserve."""
        return self.alone or not held or held + ticket.fit.slots <= self.fair(ticket.origin.tenant, total)
