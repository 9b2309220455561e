"""Refuse what the engine would refuse, before a body is read and again before texts are tokenised.

At ten times the capacity, nine requests of ten are refused. Parsing, resolving and tokenising those would
take the time that the answers need.
"""

from __future__ import annotations

from fastapi import Request

from chorus_server.api.http.context import context_of
from chorus_server.api.services import Services, services_of
from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from chorus_server.tenancy.principal import Principal, Scope


def check_early(services: Services, caller: Principal, deadline_seconds: float | None) -> None:
    """Refuse any request that the engine would refuse from this caller, whatever its content; see
    `Engine.check`.

    Raises:
        OverloadedError, QuotaExceededError: these say when to try again.
    """
    if services.serving is not None and services.serving.engine.crowded:
        services.serving.engine.check(caller.tenant, caller.weight, deadline_seconds)


def deadline_of(asked: float | None, settings: Settings) -> float | None:
    """The deadline of a request. Raises InvalidInputError if it is longer than the server allows."""
    if asked is None:
        return settings.default_deadline_seconds
    if asked > settings.max_deadline_seconds:
        raise InvalidInputError(
            f"deadline_seconds is {asked:g}, the limit is {settings.max_deadline_seconds:g}.",
            field="deadline_seconds",
        )
    return asked


def refuse_early(request: Request, scope: Scope | None) -> None:
    """The same before a body is read, of which the deadline is not known: the longest is allowed for.

    Args:
        scope: the scope that the route needs.
    """
    caller, services = context_of(request).principal, services_of(request)
    if scope is Scope.INFER and caller is not None:
        check_early(services, caller, services.settings.max_deadline_seconds)
