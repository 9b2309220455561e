"""Spans on their way to an OpenTelemetry collector, sent by a thread of its own.

Nobody who reports a span waits. If the collector is slow or away, spans are dropped and counted, and the log
says so once a minute; nothing else changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chorus_server.errors import InvalidInputError
from chorus_server.outbox import Outbox

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

LOG = logging.getLogger("chorus.spans")

_MAX_SPANS = 8192
_AT_ONCE = 512
_PAUSE_SECONDS = 0.5
"""Time between two requests to the collector. Each takes many spans."""

_TIMEOUT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_TELL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time.

    Attributes:
        trace_id, span_id, parent_id: 32 and 16 hexadecimal digits; a root has no parent.
        start, end: nanoseconds since 1970.
        error: whether it failed because of the server.
        server: whether it answers a caller, rather than being a part of that.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: Mapping[str, str | int | float]
    error: bool = False
    server: bool = False


class SpanExport:
    """Sends spans by OTLP over HTTP. At most `_MAX_SPANS` wait; further ones are dropped.

    What else the collector needs (headers, certificates, the service's name) is in OpenTelemetry's own
    variables: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, ...

    Args:
        url: where spans are posted.
        lost: called with how many spans the collector will never see.

    Raises:
        InvalidInputError: OpenTelemetry is not installed.
    """

    def __init__(self, url: str, lost: Callable[[int], None]) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        except ImportError:
            raise InvalidInputError(
                "traces_url needs OpenTelemetry; install chorus-prompts[otel].", field="traces_url"
            ) from None
        # Its own lines would come for each attempt; ours come once a minute.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT_SECONDS)
        self._resource = Resource({SERVICE_NAME: "chorus"}).merge(OTELResourceDetector().detect())
        self._lost = lost
        self._ending = False
        self._unsent = 0
        self._told = float("-inf")
        self._outbox = Outbox[Span](_MAX_SPANS, _AT_ONCE)
        threading.Thread(target=self._run, name="chorus-spans", daemon=True).start()

    def put(self, span: Span) -> None:
        """Send a span soon. May be called from any thread."""
        if not self._outbox.put(span):
            self._lost(1)

    def flush(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Wait until everything put before is sent or given up. False if that takes longer."""
        return self._outbox.flush(seconds)

    def close(self) -> None:
        """Send what is there, for a moment at most, and end."""
        self._ending = True
        self.flush()
        self._exporter.shutdown()

    def _run(self) -> None:
        pause = threading.Event()
        reached = None
        while reached is None or not self._ending:
            spans, reached = self._outbox.take()
            if spans:
                self._send(spans)
            if reached is not None:
                reached.set()
            else:
                pause.wait(_PAUSE_SECONDS)

    def _send(self, spans: list[Span]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            sent = self._exporter.export([self._readable(each) for each in spans]) is SpanExportResult.SUCCESS
        except Exception:  # whatever it is, the server does not depend on it
            LOG.debug("a collector's answer could not be read", exc_info=True)
            sent = False
        if sent:
            return
        self._lost(len(spans))
        self._unsent += len(spans)
        if time.monotonic() - self._told >= _TELL_SECONDS:
            LOG.warning("%d spans were lost: the collector does not take them", self._unsent)
            self._unsent, self._told = 0, time.monotonic()

    def _readable(self, span: Span) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode

        def context(span_id: str, remote: bool) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(span.trace_id, 16), int(span_id, 16), remote, flags)

        return ReadableSpan(
            span.name,
            context(span.span_id, False),
            context(span.parent_id, span.server) if span.parent_id else None,
            self._resource,
            dict(span.attributes),
            kind=SpanKind.SERVER if span.server else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
            start_time=span.start,
            end_time=span.end,
        )
