"""How fast requests are served lately: for Retry-After, and to shed what cannot be met."""

from __future__ import annotations

from collections import deque

_SAMPLES = 64
_ENOUGH = 16
_LONGEST_RETRY_SECONDS = 60.0


class ServiceRate:
    """Completions a second and seconds a request on the device, over the last 64 requests. Not
    thread-safe."""

    def __init__(self) -> None:
        self._finished: deque[float] = deque(maxlen=_SAMPLES)
        self._service: deque[float] = deque(maxlen=_SAMPLES)

    def finished(self, now: float, service_seconds: float) -> None:
        """One request was answered after `service_seconds` on the device."""
        self._finished.append(now)
        self._service.append(service_seconds)

    def per_second(self, now: float) -> float | None:
        """None before enough was seen."""
        if len(self._finished) < _ENOUGH:
            return None
        span = now - self._finished[0]
        return (len(self._finished) - 1) / span if span > 0 else None

    def retry_after(self, waiting: int, now: float) -> float:
        """Seconds until half of what waits will have been served; 1 to 60."""
        rate = self.per_second(now)
        if rate is None:
            return 1.0
        return min(_LONGEST_RETRY_SECONDS, max(1.0, waiting / rate / 2))

    def least_service_seconds(self) -> float:
        """What even a lucky request takes on the device: the fastest of the recent ones; 0 before enough was
        seen."""
        return min(self._service) if len(self._service) >= _ENOUGH else 0.0
