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
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from pydantic_core import from_json

from chorus_server.api.door.early import deadline_of
from chorus_server.api.door.pages import refuse_host
from chorus_server.api.http.access import AccessLog
from chorus_server.api.http.context import Arrival, new_request_id, sound_request_id
from chorus_server.api.http.errors import error_response
from chorus_server.api.http.raw import raw_response
from chorus_server.api.services import Services
from chorus_server.awake import awake
from chorus_server.errors import ChorusError, InvalidInputError, OverloadedError, QuotaExceededError
from chorus_server.tenancy.principal import Principal, Scope

_HEAD = re.compile(
    rb"POST (/v1/(?:generate|classify|ensemble)) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ \t]*[\x21-\x7e](?:[\t -~]*[\x21-\x7e])?[ \t]*\r\n)+)\r\n"
)
_END_OF_HEAD = b"\r\n\r\n"
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

_KNOWN_SECONDS, _MOST_KNOWN = 1.0, 1024
"""How long, and how many, heads are remembered. Who asks is only told for a refusal: the route of a request
that is let in looks at its key again."""

_SAME_SECONDS = _PAUSE_SECONDS
"""How long the engine's refusal serves for the same question, which is asked again at each wake-up."""

Decide = Callable[[bytes | Arrival], None]
"""Called with a request's refusal, without the server's own headers, or with its arrival if it goes the usual
way."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What the head of a plain inference request says.

    Attributes:
        head_bytes, whole_bytes: of the head, and of the request.
        request_id: that it brings; empty if none.
    """

    path: str
    caller: Principal
    head_bytes: int
    whole_bytes: int
    request_id: str


class _Question(NamedTuple):
    """What the engine is asked of a request.

    Attributes:
        deadline_seconds: from its arrival; None waits for ever.
        steps: how many device steps it takes at least.
    """

    tenant: str
    weight: float
    deadline_seconds: float | None
    steps: int


@dataclass(slots=True)
class _Waiting:
    """A request that waits to be let in since `arrived`, in monotonic seconds."""

    head: _Head
    question: _Question
    arrived: float
    decide: Decide


class _Refusal:
    """An answer that refuses, for any number of requests."""

    def __init__(self, error: ChorusError, request_id: str) -> None:
        answer = error_response(error, request_id, {"X-Request-Id": request_id})
        self.error, self.status = error, answer.status_code
        self._id, self._raw = request_id.encode(), raw_response(answer)

    def to(self, request_id: str) -> bytes:
        """The answer to the request of this id."""
        wanted = request_id.encode()
        if len(wanted) != len(self._id):  # the length of the answer stands in its head
            return _Refusal(self.error, request_id)._raw
        return self._raw.replace(self._id, wanted)


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
        self._heads: dict[bytes, _Head] = {}
        self._refusals: dict[_Question, _Refusal] = {}
        self._heads_end = self._refusals_end = 0.0
        self._lines: dict[str, deque[_Waiting]] = {}
        self._count = 0
        self._seconds_a_turn, self._last_turn = 0.0, 0.0
        self._coming: dict[int, float] = {}
        self._keys = itertools.count()
        self._refused = self._telling = False
        # In this turn of the loop: seconds by path, status and tenant; refusals that served again, by code.
        self._noted: dict[tuple[str, int, str], list[float]] = {}
        self._again: Counter[str] = Counter()
        self._last_id = ""

    def look(self, data: bytes, decide: Decide) -> bytes | int | None:
        """Decide what happens to a request.

        Args:
            data: all its bytes that have come so far.
            decide: called later, if the decision is not made at once.

        Returns:
            The refusal, without the server's own headers; or how many more bytes it needs to decide, 0 if the
            request goes the usual way; or None if it calls `decide` later.
        """
        services = self._services
        serving = services.serving
        if serving is None or services.lifecycle.closed or not (serving.engine.crowded or self._count):
            return 0
        now = awake()
        head = self._head(data, now)
        if head is None:
            return 0
        if head.whole_bytes != len(data):
            return max(0, head.whole_bytes - len(data)) if head.whole_bytes <= _MOST_BYTES else 0
        question = self._question(head, data[head.head_bytes :])
        if question is None:
            return 0
        refusal = self._same(question, now)
        if refusal is None:
            coming = self._count + self._on_their_way(now)
            wait = self._count * self._seconds_a_turn
            refusal = self._refusal(question, wait, coming)
            if refusal is not None:
                self._refusals[question] = refusal
        if refusal is not None:
            return self._answer(refusal, head, now)
        if not self._count:
            self._last_turn = now
            asyncio.get_running_loop().call_soon(self._turn)
        self._lines.setdefault(head.caller.tenant, deque()).append(_Waiting(head, question, now, decide))
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
                refusal = self._refusal(waiting.question, now - waiting.arrived, self._on_their_way(now))
            if refusal is None:
                waiting.decide(self._let_in(waiting.arrived, now))
                self._seconds_a_turn += _WEIGHT * (now - self._last_turn - self._seconds_a_turn)
                break
            waiting.decide(self._answer(refusal, waiting.head, waiting.arrived))
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

    def _head(self, data: bytes, now: float) -> _Head | None:
        """What the head says; None if it is not whole, or if a route has to say what is wrong. Heads that
        come again are known by their digest, because there are keys in them."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if end < len(_END_OF_HEAD):
            return None
        if now >= self._heads_end or len(self._heads) >= _MOST_KNOWN:
            self._heads.clear()
            self._heads_end = now + _KNOWN_SECONDS
        digest = sha256(data[:end]).digest()
        head = self._heads.get(digest)
        if head is None:
            head = self._understood(data, end)
            if head is not None:
                self._heads[digest] = head
        return head

    def _understood(self, data: bytes, end: int) -> _Head | None:
        services, found = self._services, _HEAD.match(data)
        headers = None if found is None or found.end() != end else _plain(found[2])
        if found is None or headers is None:
            return None
        key = headers.get(b"authorization")
        try:
            caller = services.callers.known(None if key is None else key.decode(), Scope.INFER)
            if caller is None:
                return None
            refuse_host([headers[b"host"].decode()], services, caller)
        except ChorusError:
            return None
        request_id = sound_request_id(headers.get(b"x-request-id", b"").decode())
        return _Head(found[1].decode(), caller, end, end + int(headers[b"content-length"]), request_id)

    def _question(self, head: _Head, body: bytes) -> _Question | None:
        """What to ask of the engine; None if a route has to say what is wrong."""
        try:
            asked = from_json(body, allow_inf_nan=False)
        except ValueError:
            return None
        seconds = asked.get("deadline_seconds") if isinstance(asked, dict) else None
        if seconds is not None and not (type(seconds) in (int, float) and seconds > 0):
            return None
        try:
            deadline = deadline_of(seconds, self._services.settings)
        except InvalidInputError:
            return None
        return _Question(head.caller.tenant, head.caller.weight, deadline, _steps(head.path, asked))

    def _same(self, question: _Question, now: float) -> _Refusal | None:
        """The refusal of the same question a moment ago. Since then the engine has hardly begun anything."""
        if now >= self._refusals_end:
            self._refusals.clear()
            self._refusals_end = now + _SAME_SECONDS
        refusal = self._refusals.get(question)
        if refusal is not None:
            self._again[refusal.error.code] += 1
        return refusal

    def _refusal(self, question: _Question, waited: float, coming: int) -> _Refusal | None:
        """The refusal, if the engine would refuse the request.

        Args:
            waited: seconds of its deadline that are gone when it is let in.
            coming: how many requests are let in before it.
        """
        serving = self._services.serving
        assert serving is not None
        tenant, weight, left, steps = question
        if left is not None:
            left -= waited
        try:
            serving.engine.check(tenant, weight, left, coming=coming, steps=steps)
        except (OverloadedError, QuotaExceededError) as error:
            error.__traceback__ = None
            return _Refusal(error, new_request_id())
        return None

    def _answer(self, refusal: _Refusal, head: _Head, arrived: float) -> bytes:
        """The answer to a request that arrived then. It is counted at the end of this turn, with all
        others."""
        request_id = head.request_id or new_request_id()
        if not self._noted:
            asyncio.get_running_loop().call_soon(self._count_refused)
        what = (head.path, refusal.status, head.caller.tenant)
        self._noted.setdefault(what, []).append(awake() - arrived)
        self._last_id = request_id
        self._refused = True
        return refusal.to(request_id)

    def _count_refused(self) -> None:
        noted, self._noted = self._noted, {}
        for (path, status, tenant), seconds in noted.items():
            self._access.refused("POST", path, status, tenant, seconds, self._last_id)
        again, self._again = self._again, Counter()
        serving = self._services.serving
        if serving is not None:
            for code, count in again.items():
                serving.engine.note_refused(code, count)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def pause_seconds(self) -> float:
        """How long the event loop may leave new bytes alone before it reads again. It is a moment after a
        refusal, so that the loop wakes up once for many requests, else nothing."""
        pause = _PAUSE_SECONDS if self._refused else 0.0
        self._refused = False
        return pause

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
