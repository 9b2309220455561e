"""Refuses what the engine would refuse by a look at a request's bytes, before the parser and the route.

At ten times the capacity, nine requests of ten are refused. On its way through the parser, the application
and the route, a refusal takes a third of the time of an answer, so little time is left for answers. While
much is waiting, each inference request is therefore looked at here first. Whatever is not plainly an
inference request that the engine would refuse goes the usual way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request, Response

from server.api.http.access import AccessLog
from server.api.http.context import context_of
from server.api.http.errors import error_response
from server.api.http.json_body import parse_json
from server.api.http.pages import refuse_pages
from server.api.inference.items import deadline_of
from server.api.services import Services
from server.errors import ChorusError, OverloadedError, QuotaExceededError
from server.tenancy.principal import Principal, Scope

_HEAD = re.compile(
    rb"POST (/v1/(?:generate|classify|ensemble)) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ \t]*[\x21-\x7e](?:[\t -~]*[\x21-\x7e])?[ \t]*\r\n)+)\r\n"
)
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})
_DIGITS = re.compile(rb"[0-9]{1,5}")

_MOST_BYTES = 16 << 10
"""Of a request that is looked at: a longer one is refused by its route."""

_AT_ONCE = 64
"""Requests that are refused in a turn because their time is over."""


Decide = Callable[[Response | None, float], None]
"""Called with a request's refusal, or None where it goes the usual way; and with when it arrived, in
monotonic seconds."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that is to be let in.

    Attributes:
        arrived: monotonic seconds.
        deadline_seconds: from then on; None waits for ever.
    """

    request: Request
    caller: Principal
    arrived: float
    deadline_seconds: float | None
    decide: Decide


class Entrance:
    """Looks at the first bytes of each request, for as long as the engine may refuse.

    What it lets in goes one request a turn of the event loop, tenants in turn: until the engine has it, the
    engine cannot count it, and a hundred let in at once would hold up every refusal behind them.

    Args:
        access: told of every request that is refused.
    """

    def __init__(self, services: Services, access: AccessLog) -> None:
        self._services = services
        self._access = access
        self._lines: dict[str, deque[_Waiting]] = {}
        self._count = 0

    def look(self, data: bytes, decide: Decide) -> Response | int | None:
        """Decide what happens to a request.

        Args:
            data: all of it that has come so far, from its first byte.
            decide: told later, where that is not decided at once.

        Returns:
            The refusal. Or how many more bytes are needed to decide; 0 where the request goes the usual way.
            Or None where `decide` is told later.
        """
        services = self._services
        serving = services.serving
        if serving is None or services.lifecycle.closed or not (serving.engine.crowded or self._count):
            return 0
        head = _HEAD.match(data)
        if head is None:
            return 0
        request = self._plain(head[1], head[2])
        if request is None:
            return 0
        whole = head.end() + int(request.headers["content-length"])
        if whole != len(data):
            return max(0, whole - len(data)) if whole <= _MOST_BYTES else 0
        waiting = self._understood(request, data[head.end() :], decide)
        if waiting is None:
            return 0
        refusal = self._refusal(waiting, waiting.arrived, self._count)
        if refusal is not None:
            return refusal
        if not self._count:
            asyncio.get_running_loop().call_soon(self._turn)
        self._lines.setdefault(waiting.caller.tenant, deque()).append(waiting)
        self._count += 1
        return None

    def _turn(self) -> None:
        """Let the next one in. What can no longer be in time is refused."""
        now = time.monotonic()
        for _ in range(min(self._count, _AT_ONCE)):
            tenant, line = next(iter(self._lines.items()))
            del self._lines[tenant]
            waiting = line.popleft()
            if line:
                self._lines[tenant] = line
            self._count -= 1
            refusal = None
            if not self._services.lifecycle.closed:
                refusal = self._refusal(waiting, now)
            waiting.decide(refusal, waiting.arrived)
            if refusal is None:
                break
        if self._count:
            asyncio.get_running_loop().call_soon(self._turn)

    def _plain(self, path: bytes, lines: bytes) -> Request | None:
        """The request of a head in which nothing is unusual."""
        headers = []
        for line in lines[:-2].split(b"\r\n"):
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip(b" \t")))
        found = dict(headers)
        if (
            not _UNUSUAL.isdisjoint(found)
            or found.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or found.get(b"content-type", b"").partition(b";")[0] != b"application/json"
            or not _DIGITS.fullmatch(found.get(b"content-length", b""))
            or b"host" not in found
            or sum(name in (b"host", b"content-length") for name, _ in headers) != 2
        ):
            return None
        scope = {
            "type": "http",
            "method": "POST",
            "path": path.decode(),
            "query_string": b"",
            "headers": headers,
        }
        return Request(scope)

    def _understood(self, request: Request, body: bytes, decide: Decide) -> _Waiting | None:
        """Who asks, and until when; None where a route has to say what is wrong."""
        services, context = self._services, context_of(request)
        try:
            refuse_pages(request, services, Scope.INFER)
            context.principal = services.keys.authorise(request.headers.get("authorization"), Scope.INFER)
            asked = parse_json(body)
            seconds = asked.get("deadline_seconds") if isinstance(asked, dict) else None
            if seconds is not None and not (type(seconds) in (int, float) and seconds > 0):
                return None
            deadline = deadline_of(seconds, services.settings)
        except ChorusError:
            return None
        return _Waiting(request, context.principal, context.started, deadline, decide)

    def _refusal(self, waiting: _Waiting, now: float, coming: int = 0) -> Response | None:
        """The answer where the engine would refuse.

        Args:
            coming: requests that are let in before it.
        """
        serving, context = self._services.serving, context_of(waiting.request)
        assert serving is not None
        caller, left = waiting.caller, waiting.deadline_seconds
        if left is not None:
            left -= now - waiting.arrived
        try:
            serving.engine.check(caller.tenant, caller.weight, left, coming=coming)
        except (OverloadedError, QuotaExceededError) as error:
            answer = error_response(error, context.request_id)
            answer.headers["X-Request-Id"] = context.request_id
            self._access.write("POST", waiting.request.scope["path"], answer.status_code, context)
            return answer
        return None
