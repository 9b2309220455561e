"""What the engine would refuse is refused before a body is read, and again before texts are tokenised.

At ten times the capacity nine requests of ten are refused: parsing, resolving and tokenising them would take
the time that answers need.
"""

from __future__ import annotations

from fastapi import Request

from server.api.http.context import context_of
from server.api.services import Services, services_of
from server.tenancy.principal import Principal, Scope


def check_early(services: Services, caller: Principal, deadline_seconds: float | None) -> None:
    """Refuse what the engine would refuse of this caller, whatever it asks for; see `Engine.check`.

    Raises:
        OverloadedError, QuotaExceededError: with when to try again.
    """
    if services.serving is not None and services.serving.engine.crowded:
        services.serving.engine.check(caller.tenant, caller.weight, deadline_seconds)


def refuse_early(request: Request, scope: Scope) -> None:
    """The same before a body is read, of which the deadline is not known: the longest is allowed for.

    Args:
        scope: that the route asks for.
    """
    caller, services = context_of(request).principal, services_of(request)
    if scope is Scope.INFER and caller is not None:
        check_early(services, caller, services.settings.max_deadline_seconds)
