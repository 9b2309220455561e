"""What the engine tells whoever counts: hooks called on the engine's thread, so they must be cheap."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, Protocol

from server.engine.plans import BlockShape
from server.engine.requests import Origin, Timings

Kind = Literal["generate", "score"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestDone:
    """One request's outcome.

    Attributes:
        outcome: `ok`, or the error's code.
        timings: None when it never reached the device.
        output_tokens: `</s>` not counted.
    """

    origin: Origin
    kind: Kind
    outcome: str
    timings: Timings | None
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """One encoder pass, when its result was read.

    Attributes:
        rows: requests in it; `bucket[0] - rows` rows were padding.
        seconds: from dispatch until the result was read, the wait behind the step before included.
    """

    kind: Kind
    bucket: tuple[int, int]
    rows: int
    distinct_tasks: int
    real_tokens: int
    padded_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """One decode dispatch, when its result was read.

    Attributes:
        active_slots: slots that belonged to a request when it was dispatched.
        tokens: tokens that it produced, `</s>` included.
    """

    shape: BlockShape
    active_slots: int
    tokens: int
    seconds: float


class EngineObserver(Protocol):
    """Hooks for metrics. An exception in one is logged and goes no further."""

    def request_accepted(self, origin: Origin, kind: Kind) -> None: ...

    def request_refused(self, origin: Origin, code: str) -> None:
        """Turned away at submit."""
        ...

    def request_done(self, done: RequestDone) -> None: ...

    def first_token(self, origin: Origin, seconds: float) -> None: ...

    def prefill_step(self, step: PrefillStep) -> None: ...

    def decode_step(self, step: DecodeStep) -> None: ...

    def prompt_rows(self, hits: int, loads: int, evictions: int) -> None:
        """Of one encoder pass: prompts found in the device table, written to it, and dropped from it."""
        ...

    def prompt_loaded(self, seconds: float, size_bytes: int, ok: bool) -> None:
        """One fetch from the store into the host tier."""
        ...

    def compiled(self, program: str, cause: str, seconds: float) -> None:
        """For executors: a program was compiled; `cause` is `startup` or `request`."""
        ...


class NullObserver:
    """Counts nothing; a base for observers that want only some hooks."""

    def request_accepted(self, origin: Origin, kind: Kind) -> None:
        return None

    def request_refused(self, origin: Origin, code: str) -> None:
        return None

    def request_done(self, done: RequestDone) -> None:
        return None

    def first_token(self, origin: Origin, seconds: float) -> None:
        return None

    def prefill_step(self, step: PrefillStep) -> None:
        return None

    def decode_step(self, step: DecodeStep) -> None:
        return None

    def prompt_rows(self, hits: int, loads: int, evictions: int) -> None:
        return None

    def prompt_loaded(self, seconds: float, size_bytes: int, ok: bool) -> None:
        return None

    def compiled(self, program: str, cause: str, seconds: float) -> None:
        return None


class GuardedObserver:
    """Passes every hook on; an exception in one is logged instead of reaching the engine's thread."""

    def __init__(self, inner: EngineObserver) -> None:
        self._inner = inner

    def request_accepted(self, origin: Origin, kind: Kind) -> None:
        self._call("request_accepted", origin, kind)

    def request_refused(self, origin: Origin, code: str) -> None:
        self._call("request_refused", origin, code)

    def request_done(self, done: RequestDone) -> None:
        self._call("request_done", done)

    def first_token(self, origin: Origin, seconds: float) -> None:
        self._call("first_token", origin, seconds)

    def prefill_step(self, step: PrefillStep) -> None:
        self._call("prefill_step", step)

    def decode_step(self, step: DecodeStep) -> None:
        self._call("decode_step", step)

    def prompt_rows(self, hits: int, loads: int, evictions: int) -> None:
        self._call("prompt_rows", hits, loads, evictions)

    def prompt_loaded(self, seconds: float, size_bytes: int, ok: bool) -> None:
        self._call("prompt_loaded", seconds, size_bytes, ok)

    def compiled(self, program: str, cause: str, seconds: float) -> None:
        self._call("compiled", program, cause, seconds)

    def _call(self, hook: str, *values: object) -> None:
        try:
            getattr(self._inner, hook)(*values)
        except Exception:
            logger.exception("the metrics hook %s failed; the engine goes on", hook)
