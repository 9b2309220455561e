"""What is known of one HTTP request while it is handled: an id, a start time, who asks."""

from __future__ import annotations

import random
import re
import secrets
import time
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Scope

from server.api.http.bodies import BodyShare
from server.tenancy.principal import Principal

ARRIVED = "chorus.arrived"
"""In the state of a request's scope, where it waited before the parser had it: when it came."""

_RANDOM = random.Random(secrets.randbits(256))
"""For ids, which are no secrets: asking the system for each would cost as much as a refusal may."""

_KEY = "chorus.context"
_TAKEN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_request_id() -> str:
    """An id of ours, for a request that brings none or that nobody could read."""
    return f"req_{_RANDOM.getrandbits(96):024x}"


@dataclass(slots=True)
class RequestContext:
    """Made by the middleware; the auth dependency names the caller.

    Attributes:
        request_id: the caller's `X-Request-Id`, or one of ours; in every answer, error and log line.
        started: monotonic seconds.
        principal: who asks; None until authorised.
        body: memory that its body takes; None where none was read.
    """

    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.monotonic)
    principal: Principal | None = None
    body: BodyShare | None = None


def open_context(scope: Scope) -> RequestContext:
    """Make the context of a request; called once, by the outermost middleware."""
    taken = _taken_id(scope)
    context = RequestContext() if taken is None else RequestContext(taken)
    context.started = scope.get("state", {}).get(ARRIVED, context.started)
    scope[_KEY] = context
    return context


def _taken_id(scope: Scope) -> str | None:
    """`X-Request-Id` of a request, where there is one and it can stand in a log line."""
    given = Headers(scope=scope).getlist("x-request-id")
    return given[0] if len(given) == 1 and _TAKEN.fullmatch(given[0]) else None


def context_of(request: Request) -> RequestContext:
    """The context of a request."""
    context = request.scope.get(_KEY)
    return context if isinstance(context, RequestContext) else open_context(request.scope)


def request_id_of(request: Request) -> str:
    """The id of a request."""
    return context_of(request).request_id
