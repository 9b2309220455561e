"""The answers of connections that end before a route could answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from chorus_server.api.http.access import PROBES
from chorus_server.api.http.context import new_request_id as new_request_id  # for `protocol`
from chorus_server.api.http.context import open_context
from chorus_server.api.http.errors import error_response, status_of
from chorus_server.api.http.raw import raw_response, with_headers
from chorus_server.errors import ChorusError, OverloadedError

_ABSOLUTE = re.compile(rb"https?://[^/?#]+(.*)", re.IGNORECASE)


class RefusedError(ChorusError):
    """A request that no route sees. The connection ends with this answer.

    Args:
        answer_status: HTTP status of the answer.
    """

    def __init__(self, answer_status: int, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.answer_status = answer_status


def malformed(reason: str) -> RefusedError:
    """The bytes are not an HTTP request, or two servers could read them differently."""
    return RefusedError(400, "malformed_request", f"The request is not valid HTTP: {reason}.")


def request_timeout(what: str) -> RefusedError:
    """The client took too long."""
    return RefusedError(408, "request_timeout", f"{what}: send the request again, faster.")


def head_too_large(limit_bytes: int, line_ended: bool) -> RefusedError:
    """The request line and headers are too long."""
    if line_ended:
        message = f"The headers are longer than {limit_bytes} bytes: send fewer or shorter ones."
        return RefusedError(431, "headers_too_large", message)
    message = f"The request's target is longer than {limit_bytes} bytes: send long values in the body."
    return RefusedError(414, "target_too_long", message)


def no_descriptor() -> OverloadedError:
    """As many connections are open as the process may have, and all are busy."""
    return OverloadedError(
        "The server has no room for another connection: try again later.", retry_after_seconds=1
    )


def check_head(headers: list[tuple[bytes, bytes]], version: str) -> None:
    """Refuse what a parser may accept although two servers in a row could read it differently.

    Args:
        headers: names in lower case.
        version: as the request line has it, such as `1.1`.

    Raises:
        RefusedError: the framing or the host is ambiguous, or the request expects something that the server
            does not do.
    """
    names = [name for name, _ in headers]
    if version not in ("1.1", "1.0"):
        raise malformed("the versions are HTTP/1.1 and HTTP/1.0")
    hosts = names.count(b"host")
    if hosts > 1 or (version == "1.1" and not hosts):
        raise malformed(f"one Host header is needed, there are {hosts}")
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise malformed("Transfer-Encoding and Content-Length exclude each other")
        if version == "1.0":
            raise malformed("HTTP/1.0 has no Transfer-Encoding")
        if [value.lower() for name, value in headers if name == b"transfer-encoding"] != [b"chunked"]:
            raise malformed("the only Transfer-Encoding is chunked, once")
    if b"expect" in names and dict(headers)[b"expect"].lower() != b"100-continue":
        raise RefusedError(
            417, "expectation_failed", "The only Expect that the server knows is 100-continue."
        )


def origin_form(target: bytes, method: str) -> bytes:
    """The path and query of a target that also names the server, as proxies send it. Other targets stay as
    they are.

    Raises:
        RefusedError: the target has no path.
    """
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise malformed("the target is not a path")
    rest = absolute[1]
    return rest if rest.startswith(b"/") else b"/" + rest


def raw_answer(error: ChorusError, request_id: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a whole HTTP answer after which the connection ends.

    Args:
        headers: those that every answer of the server carries.
    """
    answer = error_response(error, request_id)
    answer.status_code = error.answer_status if isinstance(error, RefusedError) else status_of(error)
    answer.headers["x-request-id"] = request_id
    answer.headers["connection"] = "close"
    return with_headers(raw_response(answer), headers)


def only_probes(app: ASGIApp) -> ASGIApp:
    """The application for a connection that came when all others were taken and busy: only health checks get
    through."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        request_id = open_context(scope).request_id
        response = error_response(no_descriptor(), request_id)
        response.headers["X-Request-Id"] = request_id
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    return answer
