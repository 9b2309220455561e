"""Bounds how often one address may make the server look for keys that are not there."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable

from chorus_server.errors import QuotaExceededError

MOST_A_SECOND = 10
_WINDOW_SECONDS = 1.0
_MOST_ADDRESSES = 4096
_MOST_FOUND = 1 << 17


class Guesses:
    """Queries for keys of which nothing is known, in the last second, by address. A key that was found once
    is no guess any more, so that nobody who guesses keeps it from being looked up again.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._made: OrderedDict[str, deque[float]] = OrderedDict()
        self._found: OrderedDict[str, None] = OrderedDict()

    def begin(self, address: str, public: str) -> None:
        """A query for a key is about to be made.

        Raises:
            QuotaExceededError: `too_many_unknown_keys`.
        """
        if public in self._found:
            return
        network, now = _network(address), self._clock()
        made = self._made.setdefault(network, deque(maxlen=MOST_A_SECOND))
        self._made.move_to_end(network)
        if len(self._made) > _MOST_ADDRESSES:
            self._made.popitem(last=False)
        if len(made) == MOST_A_SECOND and now < made[0] + _WINDOW_SECONDS:
            raise QuotaExceededError(
                "Too many keys that nobody has came from your address: check the key, and try again.",
                code="too_many_unknown_keys",
                retry_after_seconds=_WINDOW_SECONDS,
            )
        made.append(now)

    def found(self, address: str, public: str) -> None:
        """The key was there: that was no guess."""
        made = self._made.get(_network(address))
        if public not in self._found and made:
            made.pop()
        self._found[public] = None
        self._found.move_to_end(public)
        if len(self._found) > _MOST_FOUND:
            self._found.popitem(last=False)


def _network(address: str) -> str:
    """The address, or of IPv6 the half that one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address
