"""What the engine would refuse is refused by a look at a request's bytes, before parser and route have them.

At ten times the capacity nine requests of ten are refused. On the way through parser, application and route a
refusal takes a third of what an answer takes, and little time is left for answers. So while much is waiting,
each inference request is looked at here first. What is not plainly one, or is not plainly refused, goes the
usual way.
"""

from __future__ import annotations

import re

from fastapi import Request, Response

from server.api.http.access import AccessLog
from server.api.http.context import context_of
from server.api.http.errors import error_response
from server.api.http.json_body import parse_json
from server.api.http.pages import refuse_pages
from server.api.inference.items import deadline_of
from server.api.services import Services
from server.errors import ChorusError, OverloadedError, QuotaExceededError
from server.tenancy.principal import Scope

_HEAD = re.compile(
    rb"POST (/v1/(?:generate|classify|ensemble)) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ \t]*[\x21-\x7e](?:[\t -~]*[\x21-\x7e])?[ \t]*\r\n)+)\r\n"
)
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})
_DIGITS = re.compile(rb"[0-9]{1,5}")

_MOST_BYTES = 16 << 10
"""Of a request that is looked at: a longer one is refused by its route."""


class Entrance:
    """Looks at the first bytes of each request, for as long as the engine may refuse.

    Args:
        access: told of every request that is refused.
    """

    def __init__(self, services: Services, access: AccessLog) -> None:
        self._services = services
        self._access = access

    def look(self, data: bytes) -> Response | int:
        """What is to become of a request.

        Args:
            data: what has come of it, from its first byte on, and all that has come.

        Returns:
            The refusal; or how many bytes more must come to tell, 0 where it goes the usual way.
        """
        services = self._services
        serving = services.serving
        if serving is None or not serving.engine.crowded or services.lifecycle.closed:
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
        return self._judge(request, data[head.end() :]) or 0

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

    def _judge(self, request: Request, body: bytes) -> Response | None:
        services, context = self._services, context_of(request)
        assert services.serving is not None
        try:
            refuse_pages(request, services, Scope.INFER)
            caller = services.keys.authorise(request.headers.get("authorization"), Scope.INFER)
            asked = parse_json(body)
            seconds = asked.get("deadline_seconds") if isinstance(asked, dict) else None
            if seconds is not None and not (type(seconds) in (int, float) and seconds > 0):
                return None
            deadline = deadline_of(seconds, services.settings)
        except ChorusError:
            return None
        context.principal = caller
        try:
            services.serving.engine.check(caller.tenant, caller.weight, deadline)
        except (OverloadedError, QuotaExceededError) as error:
            answer = error_response(error, context.request_id)
            answer.headers["X-Request-Id"] = context.request_id
            self._access.write("POST", request.scope["path"], answer.status_code, context)
            return answer
        return None
