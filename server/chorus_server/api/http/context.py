"""What is known about an HTTP request while it is handled: its id, when it started, who sent it."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Scope

from chorus_server.api.http.bodies import BodyShare
from chorus_server.api.http.traces import RequestTrace
from chorus_server.awake import awake
from chorus_server.tenancy.principal import Principal
from prompts_store.records import Creation

ARRIVAL = "chorus.arrival"
"""Key in a request's scope state that holds its `Arrival`, if the request waited before it was parsed."""

_RANDOM = random.Random(secrets.randbits(256))
"""Random numbers for ids, which are not secret. Asking the operating system for each would cost as much as a
whole refusal may."""

_KEY = "chorus.context"
_TAKEN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_request_id() -> str:
    """A new id, for a request that has none or that could not be read."""
    return f"req_{_RANDOM.getrandbits(96):024x}"


def _nothing() -> None: ...


AskedVersion = tuple[str, int | None]
"""A version: `tenant/task` and number, or `base` and None."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that was examined before the parser got it.

    Attributes:
        seconds: when it arrived, in monotonic seconds.
        settle: call it when the engine has the request, or when nobody needs it any more.
    """

    seconds: float
    settle: Callable[[], None]


@dataclass(slots=True)
class RequestContext:
    """Made by the middleware; the auth dependency fills in the caller.

    Attributes:
        request_id: the caller's `X-Request-Id`, or a new one; it is in every answer, error and log line.
        started: when the request arrived, in monotonic seconds.
        principal: the caller; None until authorised.
        body: the memory that its body takes; None if no body was read.
        creation: what it asks to be made, if the same may be asked for again.
        settle: the one of its `Arrival`.
        headers: that its answer has besides its own.
        trace: its spans; None if it is not recorded.
        asked: the versions that its items are for, as `tenant/task` and number; the base model is `base`.
    """

    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=awake)
    principal: Principal | None = None
    body: BodyShare | None = None
    creation: Creation | None = None
    settle: Callable[[], None] = _nothing
    headers: dict[str, str] = field(default_factory=dict)
    trace: RequestTrace | None = None
    asked: set[AskedVersion] = field(default_factory=set)

    @property
    def names(self) -> dict[str, str | int | None]:
        """What a line about this request says of it: `request_id`, `tenant`, `task`, `version` and
        `trace_id`. With several versions the task is `several`."""
        task, version = next(iter(self.asked)) if len(self.asked) == 1 else ("several", None)
        return {
            "request_id": self.request_id,
            "tenant": self.principal.tenant if self.principal else None,
            "task": task if self.asked else None,
            "version": version,
            "trace_id": self.trace.trace_id if self.trace else None,
        }


def open_context(scope: Scope) -> RequestContext:
    """Make the context of a request. The outermost middleware calls this once."""
    given = Headers(scope=scope).getlist("x-request-id")
    known = sound_request_id(given[0]) if len(given) == 1 else ""
    context = RequestContext(known) if known else RequestContext()
    arrival: Arrival | None = scope.get("state", {}).get(ARRIVAL)
    if arrival is not None:
        context.started, context.settle = arrival.seconds, arrival.settle
    scope[_KEY] = context
    return context


def sound_request_id(given: str) -> str:
    """An `X-Request-Id` that is fit for a log line; empty if this one is not."""
    return given if _TAKEN.fullmatch(given) else ""


def context_of(request: Request) -> RequestContext:
    """The context of a request."""
    context = request.scope.get(_KEY)
    return context if isinstance(context, RequestContext) else open_context(request.scope)


def request_id_of(request: Request) -> str:
    """The id of a request."""
    return context_of(request).request_id
