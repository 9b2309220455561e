"""From a plain `Request` to an httpx2 one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx2

from chorus.limits import Deadline
from chorus.wire import Request

MAX_CONNECTIONS = 100


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to send requests, with which key, and the limits of one call. `repr` does not show the key.

    Attributes:
        timeout: limit of each wait on the network.
        total_seconds: limit of a whole call; None means no limit.
        max_answer_bytes: limit of one answer, or of one event in a stream; None means no limit.
    """

    base_url: httpx2.URL
    headers: httpx2.Headers
    timeout: httpx2.Timeout
    total_seconds: float | None
    max_answer_bytes: int | None

    def build(self, request: Request, deadline: Deadline) -> httpx2.Request:
        """The httpx2 request. Its body can be sent more than once."""
        arguments: dict[str, Any] = {}
        headers = self.headers.copy()
        if request.token is not None:
            headers["Authorization"] = f"Bearer {request.token}"
        if request.idempotency_key is not None:
            headers["Idempotency-Key"] = request.idempotency_key
        if request.body is not None:
            headers["Content-Type"] = "application/json"
            arguments["content"] = request.body
        if request.content is not None:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Length"] = str(request.content.size)
            # httpx2 adds this header to requests whose body it makes itself.
            headers["Host"] = self.base_url.netloc.decode("ascii")
            arguments["stream"] = request.content
        if request.upload is not None:
            upload = request.upload
            arguments["files"] = {"file": (upload.filename, upload.content, "application/octet-stream")}
            arguments["data"] = {"metadata": upload.metadata}
        return httpx2.Request(
            request.method,
            self.base_url.copy_with(
                raw_path=self.base_url.raw_path.rstrip(b"/") + request.path.encode("ascii")
            ),
            params=list(request.query) or None,
            headers=headers,
            extensions={
                "timeout": {name: deadline.within(wait) for name, wait in self.timeout.as_dict().items()}
            },
            **arguments,
        )


def connection(
    base_url: httpx2.URL,
    key: str | None,
    timeout_seconds: float | None,
    total_seconds: float | None,
    max_answer_bytes: int | None,
) -> Connection:
    """Settings of a connection. The timeout applies to each wait on the network; connecting takes at most 10
    seconds.
    """
    headers = httpx2.Headers(
        {"User-Agent": f"chorus-client/{_version()}", "Accept": "*/*", "Accept-Encoding": "identity"}
    )
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    connect = 10.0 if timeout_seconds is None else min(10.0, timeout_seconds)
    timeout = httpx2.Timeout(timeout_seconds, connect=connect)
    return Connection(base_url, headers, timeout, total_seconds, max_answer_bytes)


def _version() -> str:
    try:
        return version("chorus-prompts")
    except PackageNotFoundError:
        return "0"
