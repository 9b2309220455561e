"""An OpenTelemetry collector of a test's own: a real HTTP server that reads OTLP protobuf."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Collector:
    """What came so far.

    Attributes:
        bodies: as they came.
        status: of the answers.
        taking: while it is not set, a request waits.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        self.bodies: list[bytes] = []
        self.status = 200
        self.taking = threading.Event()
        self.taking.set()

    @property
    def spans(self) -> list[Any]:
        """Every span, in protobuf."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    @property
    def services(self) -> set[str]:
        """The services that the spans are of."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        resources = [each.resource for request in requests for each in request.resource_spans]
        return {attributes(resource)["service.name"] for resource in resources}


def attributes(span: Any) -> dict[str, Any]:
    """Attributes of a span or a resource by name."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert collector.taking.wait(300)
            if collector.status == 200:
                collector.bodies.append(body)
            self.send_response(collector.status)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.taking.set()
            server.shutdown()
