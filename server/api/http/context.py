"""What is known of one HTTP request while it is handled: an id, a start time, who asks."""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Scope

from server.api.http.bodies import BodyShare
from server.tenancy.principal import Principal

ARRIVAL = "chorus.arrival"
"""In the state of a request's scope, where it waited before the parser had it: its `Arrival`."""

_RANDOM = random.Random(secrets.randbits(256))
"""For ids, which are no secrets: asking the system for each would cost as much as a refusal may."""

_KEY = "chorus.context"
_TAKEN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_request_id() -> str:
    """An id of ours, for a request that brings none or that nobody could read."""
    return f"req_{_RANDOM.getrandbits(96):024x}"


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that was looked at before the parser had it.

    Attributes:
        seconds: monotonic; when it came.
        settle: to be called when the engine has it, or nobody any more.
    """

    seconds: float
    settle: Callable[[], None]


@dataclass(slots=True)
class RequestContext:
    """Made by the middleware; the auth dependency names the caller.

    Attributes:
        request_id: the caller's `X-Request-Id`, or one of ours; in every answer, error and log line.
        started: monotonic seconds.
        principal: who asks; None until authorised.
        body: memory that its body takes; None where none was read.
        settle: of its `Arrival`.
    """

    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.monotonic)
    principal: Principal | None = None
    body: BodyShare | None = None
    settle: Callable[[], None] = _nothing


def open_context(scope: Scope) -> RequestContext:
    """Make the context of a request; called once, by the outermost middleware."""
    given = Headers(scope=scope).getlist("x-request-id")
    context = context_of_id(given[0] if len(given) == 1 else "")
    arrival: Arrival | None = scope.get("state", {}).get(ARRIVAL)
    if arrival is not None:
        context.started, context.settle = arrival.seconds, arrival.settle
    scope[_KEY] = context
    return context


def context_of_id(given: str) -> RequestContext:
    """The context of a request that brings this `X-Request-Id`, which is taken where it can stand in a log
    line."""
    return RequestContext(given) if _TAKEN.fullmatch(given) else RequestContext()


def context_of(request: Request) -> RequestContext:
    """The context of a request."""
    context = request.scope.get(_KEY)
    return context if isinstance(context, RequestContext) else open_context(request.scope)


def request_id_of(request: Request) -> str:
    """The id of a request."""
    return context_of(request).request_id
