"""Counts XLA compiles by program and cause, so that a compile caused by a request cannot go unnoticed."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any

import jax.monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"
_RETRIEVED = "/jax/compilation_cache/cache_hits"


LAST_COMPILES = 20
"""How many compiles are remembered one by one."""


@dataclass(frozen=True, slots=True)
class OneCompile:
    """A program that was compiled, or read from JAX's persistent cache, and the seconds that it took."""

    at: datetime
    program: str
    cause: str
    seconds: float


class CompileWatch:
    """Listens to JAX's own compile events on any thread, between `start` (or `with`) and `close`.

    The cause of a compile is `startup` until `mark_ready`, and `request` after it, unless its context is
    inside `because`. Everything that compiles counts, not only the executor's programs: a stray `jnp.zeros`
    while serving counts too.

    Args:
        now: the time, for `last`.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._last: deque[OneCompile] = deque(maxlen=LAST_COMPILES)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds = 0.0
        self._cached = 0
        self._ready = False
        self._reason: ContextVar[tuple[str, str] | None] = ContextVar("reason", default=None)

    def start(self) -> CompileWatch:
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        return self

    def close(self) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    def __enter__(self) -> CompileWatch:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def mark_ready(self) -> None:
        """From now on, a compile without another cause counts as caused by a request."""
        with self._lock:
            self._ready = True

    @contextmanager
    def because(self, cause: str, program: str = "") -> Iterator[None]:
        """Compiles inside the block get this cause and program, on this thread and on others that run in a
        copy of its context."""
        before = self._reason.set((cause, program))
        try:
            yield
        finally:
            self._reason.reset(before)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of compiles by (program, cause)."""
        with self._lock:
            return dict(self._counts)

    def last(self) -> tuple[OneCompile, ...]:
        """The last `LAST_COMPILES`, in the order in which they ended."""
        with self._lock:
            return tuple(self._last)

    def caused_by(self, cause: str) -> int:
        """Number of compiles with this cause."""
        return sum(count for (_, why), count in self.counts().items() if why == cause)

    @property
    def seconds(self) -> float:
        """Seconds spent compiling or reading from the persistent cache."""
        return self._seconds

    @property
    def from_cache(self) -> int:
        """Number of programs that came from the persistent cache."""
        return self._cached

    def _on_duration(self, event: str, duration_secs: float, **details: Any) -> None:
        if event != _COMPILED:
            return
        with self._lock:
            cause, program = self._reason.get() or ("request" if self._ready else "startup", "")
            program = program or str(details.get("fun_name", "")) or "unknown"
            self._counts[program, cause] += 1
            self._last.append(OneCompile(self._now(), program, cause, duration_secs))
            self._seconds += duration_secs

    def _on_event(self, event: str, **details: Any) -> None:
        if event == _RETRIEVED:
            with self._lock:
                self._cached += 1


def use_persistent_cache(folder: str) -> None:
    """Keep compiled programs in `folder`, so that the next start reads them instead of compiling."""
    update: Any = jax.config.update
    update("jax_compilation_cache_dir", folder)
    update("jax_persistent_cache_min_compile_time_secs", 0.0)
    update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_reads() -> int:
    """How many programs this thread has read from JAX's persistent cache; differences of it are meant."""
    return getattr(_heard(), "reads", 0)


@lru_cache(maxsize=1)
def _heard() -> threading.local:
    """What each thread has read, from the first call on."""
    mine = threading.local()

    def hear(event: str, **details: Any) -> None:
        if event == _RETRIEVED:
            mine.reads = getattr(mine, "reads", 0) + 1

    jax.monitoring.register_event_listener(hear)
    return mine
