"""The spans of a request: the request itself, the door, and each item's time in the engine.

No clock is read for them that is not read anyway: they are made at the end, from the times that the access
log, the metrics and the engine know. A caller's `traceparent` (W3C Trace Context) becomes their parent.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chorus_server.awake import awake
from chorus_server.engine.work import Settled
from chorus_server.spans import Span

_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED = 1
_NAMED = ("request_id", "tenant", "task", "version")

_RANDOM = random.Random(secrets.randbits(256))
"""Random numbers for ids, which are not secret."""


def _new_span() -> str:
    return f"{_RANDOM.getrandbits(64) or 1:016x}"


@dataclass(slots=True)
class RequestTrace:
    """One request that is recorded.

    Attributes:
        trace_id, span_id, parent_id: hexadecimal; a root has no parent.
        admitted: when the engine had its items, in monotonic seconds; None if it never did.
    """

    trace_id: str
    span_id: str
    parent_id: str
    admitted: float | None = None

    @property
    def traceparent(self) -> str:
        """What makes another span a part of this one."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class Traces:
    """Decides which requests are recorded, and reports their spans.

    Args:
        put: takes each span; it must be quick and never raise.
        share: of the requests that bring no `traceparent`; the others' callers decide.
    """

    def __init__(self, put: Callable[[Span], None], share: float = 1.0) -> None:
        self._put = put
        self._share = share

    def begin(self, given: Sequence[str]) -> RequestTrace | None:
        """A request came with these `traceparent` headers. None if it is not recorded."""
        parts = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
        if parts is not None and not (parts[1] == "00" and parts[5]):  # version 00 ends after the flags
            return RequestTrace(parts[2], _new_span(), parts[3]) if int(parts[4], 16) & _SAMPLED else None
        if _RANDOM.random() >= self._share:
            return None
        return RequestTrace(f"{_RANDOM.getrandbits(128) or 1:032x}", _new_span(), "")

    def end(
        self,
        trace: RequestTrace,
        method: str,
        route: str,
        status: int,
        started: float,
        names: Mapping[str, str | int | None],
    ) -> None:
        """The request was answered, or its caller left.

        Args:
            route: as a template.
            started: in monotonic seconds.
            names: what it asked, as the log has it.
        """
        now, past = time.time_ns(), awake()
        start = now - _nanoseconds(past - started)
        facts: dict[str, str | int | float] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
        facts |= {f"chorus.{name}": value for name in _NAMED if (value := names[name]) is not None}
        ids = trace.trace_id, trace.span_id, trace.parent_id
        self._put(Span(f"{method} {route}", *ids, start, now, facts, error=status >= 500, server=True))
        if trace.admitted is not None:
            inside = now - _nanoseconds(past - trace.admitted)
            self._put(Span("door", trace.trace_id, _new_span(), trace.span_id, start, inside, {}))

    def settled(self, settled: Settled) -> None:
        """An item has its outcome. Called on the engine's thread."""
        origin, spent = settled.origin, settled.timings
        if not origin.traceparent or spent is None:
            return
        _, trace_id, parent_id, _ = origin.traceparent.split("-")
        facts: dict[str, str | int | float] = {
            "chorus.tenant": origin.tenant,
            "chorus.task": origin.task or "base",
            "chorus.item": origin.item,
            "chorus.outcome": settled.outcome,
            "chorus.tokens_in": settled.tokens_in,
            "chorus.tokens_out": settled.tokens_out,
            "chorus.work_units": settled.work_units,
        }
        if origin.version is not None:
            facts["chorus.version"] = origin.version
        phases = [("queue", spent.queue)]
        if settled.kind == "score":  # what was computed is read in the same step
            phases.append(("score", spent.prefill))
        else:
            phases += [("prefill", spent.prefill), ("decode", spent.decode)]
        start = time.time_ns() - _nanoseconds(spent.queue + spent.prefill + spent.decode)
        for name, seconds in phases:
            if name == "queue" or seconds > 0:
                end = start + _nanoseconds(seconds)
                self._put(Span(name, trace_id, _new_span(), parent_id, start, end, facts))
                start = end


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
