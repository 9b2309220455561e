"""Refuse what the engine would refuse, before a body is read and again before texts are tokenised.

At ten times the capacity, nine requests of ten are refused. Parsing, resolving and tokenising those would
take the time that the answers need.
"""

from __future__ import annotations

from fastapi import Request

from chorus_server.api.http.context import context_of
from chorus_server.api.services import Services, services_of
from chorus_server.errors import InvalidInputError, QuotaExceededError
from chorus_server.settings import Settings
from chorus_server.tenancy.principal import Principal, Scope
from chorus_server.tenancy.quota import quota_headers


def check_early(
    services: Services, caller: Principal, deadline_seconds: float | None, headers: dict[str, str]
) -> None:
    """Refuse any request that the caller's limits or the engine would refuse, whatever its content; see
    `Budgets.check` and `Engine.check`.

    Args:
        headers: of the answer; how the limits stand is added if one refuses.

    Raises:
        OverloadedError, QuotaExceededError: these say when to try again.
    """
    try:
        services.budgets.check(caller)
    except QuotaExceededError:
        headers.update(quota_headers(services.budgets.limits_of(caller)))
        raise
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
        seconds = services.settings.max_deadline_seconds
        check_early(services, caller, seconds, context_of(request).headers)
