"""The one dependency that authorises. Each route asks for a scope, and `KeyRing` says who has it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from chorus_server.api.http.context import context_of
from chorus_server.api.services import services_of
from chorus_server.tenancy.principal import Principal, Scope


class Require:
    """A dependency that returns the caller if its key carries `scope`, and answers 401 or 403 if not."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        return self.authorise(request)

    def authorise(self, request: Request) -> Principal:
        """The caller. `ChorusRoute` calls this before it reads a body, and FastAPI calls it again for the
        route's parameter.

        Raises:
            UnauthenticatedError, ForbiddenError: see `KeyRing.authorise`.
        """
        context = context_of(request)
        if context.principal is None:
            keys = services_of(request).keys
            context.principal = keys.authorise(request.headers.get("authorization"), self.scope)
        return context.principal


MayInfer = Annotated[Principal, Depends(Require(Scope.INFER))]
MayRead = Annotated[Principal, Depends(Require(Scope.READ))]
MayWrite = Annotated[Principal, Depends(Require(Scope.WRITE))]
MayTune = Annotated[Principal, Depends(Require(Scope.TUNE))]
MayScrape = Annotated[Principal, Depends(Require(Scope.METRICS))]
