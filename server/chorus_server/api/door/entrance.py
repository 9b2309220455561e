"""Refuse what the engine would refuse by looking at a request's bytes, before the parser and the route.

At ten times the capacity, nine requests of ten are refused. A refusal that goes through the parser, the
application and the route takes a third of the time of an answer, so little time is left for answers. While
many requests wait, each new inference request is therefore examined here first. Anything that is not plainly
an inference request that the engine would refuse goes the usual way.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from chorus_server.api.door.early import deadline_of
from chorus_server.api.door.pages import refuse_host
from chorus_server.api.http.access import AccessLog
from chorus_server.api.http.context import Arrival, RequestContext, context_of_id
from chorus_server.api.http.errors import error_response
from chorus_server.api.http.json_body import parse_json
from chorus_server.api.services import Services
from chorus_server.awake import awake
from chorus_server.errors import ChorusError, OverloadedError, QuotaExceededError
from chorus_server.tenancy.principal import Principal, Scope

_HEAD = re.compile(
    rb"POST (/v1/(?:generate|classify|ensemble)) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ \t]*[\x21-\x7e](?:[\t -~]*[\x21-\x7e])?[ \t]*\r\n)+)\r\n"
)
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"origin", b"sec-fetch-site"})
_DIGITS = re.compile(rb"[0-9]{1,5}")

_MOST_BYTES = 16 << 10
"""Longest request that is examined here; its route refuses a longer one."""

_AT_ONCE = 64
"""Requests refused in one turn because they are out of time."""

_PAUSE_SECONDS = 0.005
_TELL_SECONDS = 1.0
"""Seconds from one log line about refusals to the next."""

_WEIGHT = 0.1
"""Weight of the newest turn in the mean time of a turn."""

_LOST_SECONDS = 1.0
"""After this many seconds a request that was let in no longer counts, whatever happened to it."""

_MOST_TOKENS = 1 << 20
"""Most new tokens that are understood here. The route says how many a request may really ask for."""


Decide = Callable[[Response | Arrival], None]
"""Called with a request's refusal, or with its arrival if it goes the usual way."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits to be let in.

    Attributes:
        arrived: when it arrived, in monotonic seconds.
        deadline_seconds: counted from `arrived`; None waits for ever.
        steps: how many device steps it takes at least.
    """

    path: str
    context: RequestContext
    caller: Principal
    arrived: float
    deadline_seconds: float | None
    steps: int
    decide: Decide


class Entrance:
    """Looks at the first bytes of each request, as long as the engine may refuse.

    It lets requests in one at a time, one each turn of the event loop, tenants in turn. Until the engine has
    a request it cannot count it, and a hundred let in at once would delay every refusal behind them.

    Args:
        access: called for every refused request.
    """

    def __init__(self, services: Services, access: AccessLog) -> None:
        self._services = services
        self._access = access
        self._lines: dict[str, deque[_Waiting]] = {}
        self._count = 0
        self._seconds_a_turn, self._last_turn = 0.0, 0.0
        self._coming: dict[int, float] = {}
        self._keys = itertools.count()
        self._refused = self._telling = False

    def look(self, data: bytes, decide: Decide) -> Response | int | None:
        """Decide what happens to a request.

        Args:
            data: all its bytes that have come so far.
            decide: called later, if the decision is not made at once.

        Returns:
            The refusal; or how many more bytes it needs to decide, 0 if the request goes the usual way; or
            None if it calls `decide` later.
        """
        services = self._services
        serving = services.serving
        if serving is None or services.lifecycle.closed or not (serving.engine.crowded or self._count):
            return 0
        head = _HEAD.match(data)
        if head is None:
            return 0
        headers = _plain(head[2])
        if headers is None:
            return 0
        whole = head.end() + int(headers[b"content-length"])
        if whole != len(data):
            return max(0, whole - len(data)) if whole <= _MOST_BYTES else 0
        waiting = self._understood(head[1].decode(), headers, data[head.end() :], decide)
        if waiting is None:
            return 0
        coming = self._count + self._on_their_way(waiting.arrived)
        its_turn = waiting.arrived + self._count * self._seconds_a_turn
        refusal = self._refusal(waiting, its_turn, coming)
        if refusal is not None:
            return refusal
        if not self._count:
            self._last_turn = waiting.arrived
            asyncio.get_running_loop().call_soon(self._turn)
        self._lines.setdefault(waiting.caller.tenant, deque()).append(waiting)
        self._count += 1
        return None

    def _turn(self) -> None:
        """Let in the next request. Refuse those that can no longer be in time."""
        now = awake()
        for _ in range(min(self._count, _AT_ONCE)):
            tenant, line = next(iter(self._lines.items()))
            del self._lines[tenant]
            waiting = line.popleft()
            if line:
                self._lines[tenant] = line
            self._count -= 1
            refusal = None
            if not self._services.lifecycle.closed:
                refusal = self._refusal(waiting, now, self._on_their_way(now))
            if refusal is None:
                waiting.decide(self._let_in(waiting.arrived, now))
                self._seconds_a_turn += _WEIGHT * (now - self._last_turn - self._seconds_a_turn)
                break
            waiting.decide(refusal)
        self._last_turn = now
        if self._count:
            asyncio.get_running_loop().call_soon(self._turn)

    def _let_in(self, arrived: float, now: float) -> Arrival:
        """Pass the request on to the parser. It counts here until the engine has it."""
        key = next(self._keys)
        self._coming[key] = now

        def settle() -> None:
            self._coming.pop(key, None)

        return Arrival(arrived, settle)

    def _on_their_way(self, now: float) -> int:
        """How many requests were let in and have not reached the engine yet."""
        while self._coming and next(iter(self._coming.values())) < now - _LOST_SECONDS:
            del self._coming[next(iter(self._coming))]
        return len(self._coming)

    def _understood(
        self, path: str, headers: dict[bytes, bytes], body: bytes, decide: Decide
    ) -> _Waiting | None:
        """Who asks, and until when; None if a route has to say what is wrong."""
        services = self._services
        key = headers.get(b"authorization")
        try:
            caller = services.callers.known(None if key is None else key.decode(), Scope.INFER)
            if caller is None:
                return None
            refuse_host([headers[b"host"].decode()], services, caller)
            asked = parse_json(body)
            seconds = asked.get("deadline_seconds") if isinstance(asked, dict) else None
            if seconds is not None and not (type(seconds) in (int, float) and seconds > 0):
                return None
            deadline = deadline_of(seconds, services.settings)
        except ChorusError:
            return None
        context = context_of_id(headers.get(b"x-request-id", b"").decode())
        context.principal = caller
        return _Waiting(path, context, caller, context.started, deadline, _steps(path, asked), decide)

    def _refusal(self, waiting: _Waiting, now: float, coming: int = 0) -> Response | None:
        """The refusal, if the engine would refuse the request.

        Args:
            coming: how many requests are let in before it.
        """
        serving, context = self._services.serving, waiting.context
        assert serving is not None
        caller, left = waiting.caller, waiting.deadline_seconds
        if left is not None:
            left -= now - waiting.arrived
        try:
            serving.engine.check(caller.tenant, caller.weight, left, coming=coming, steps=waiting.steps)
        except (OverloadedError, QuotaExceededError) as error:
            answer = error_response(error, context.request_id, {"X-Request-Id": context.request_id})
            self._access.refused("POST", waiting.path, answer.status_code, context)
            self._note_refused()
            return answer
        return None

    def pause_seconds(self) -> float:
        """How long the event loop may leave new bytes alone before it reads again. It is a moment after a
        refusal, so that the loop wakes up once for many requests, else nothing."""
        pause = _PAUSE_SECONDS if self._refused else 0.0
        self._refused = False
        return pause

    def _note_refused(self) -> None:
        self._refused = True
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        if self._access.tell_refused():
            self._telling = False
        else:
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)


def _steps(path: str, asked: object) -> int:
    """The least number of steps of a request: a prefill step, and the tokens that it may generate."""
    tokens = asked.get("max_new_tokens") if isinstance(asked, dict) and path == "/v1/generate" else None
    return 1 + tokens if type(tokens) is int and 0 < tokens <= _MOST_TOKENS else 1


def _plain(lines: bytes) -> dict[bytes, bytes] | None:
    """The headers by lower-case name, if nothing in them is unusual."""
    each = lines[:-2].split(b"\r\n")
    headers = {}
    for line in each:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip(b" \t")
    if (
        len(headers) != len(each)
        or not _UNUSUAL.isdisjoint(headers)
        or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or headers.get(b"content-type", b"").partition(b";")[0] != b"application/json"
        or not _DIGITS.fullmatch(headers.get(b"content-length", b""))
        or b"host" not in headers
    ):
        return None
    return headers
