"""What is known of one HTTP request while it is handled: an id, a start time, who asks."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from fastapi import Request
from starlette.types import Scope

from server.tenancy.principal import Principal

_KEY = "chorus.context"


@dataclass(slots=True)
class RequestContext:
    """Made by the middleware; the auth dependency names the caller.

    Attributes:
        request_id: unique in the process; in every answer, error and log line.
        started: monotonic seconds.
        principal: who asks; None until authorised.
    """

    request_id: str = field(default_factory=lambda: "req_" + secrets.token_hex(12))
    started: float = field(default_factory=time.monotonic)
    principal: Principal | None = None


def open_context(scope: Scope) -> RequestContext:
    """Make the context of a request; called once, by the outermost middleware."""
    context = RequestContext()
    scope[_KEY] = context
    return context


def context_of(request: Request) -> RequestContext:
    """The context of a request."""
    context = request.scope.get(_KEY)
    return context if isinstance(context, RequestContext) else open_context(request.scope)


def request_id_of(request: Request) -> str:
    """The id of a request."""
    return context_of(request).request_id
