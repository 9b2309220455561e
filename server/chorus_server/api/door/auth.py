"""The one dependency that authorises: each route asks for a scope, and `Callers` says who has it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from chorus_server.api.door.in_process import session_token
from chorus_server.api.http.context import context_of
from chorus_server.api.services import services_of
from chorus_server.tenancy.principal import Principal, Scope


class Require:
    """A dependency that gives the caller if its key carries `scope`, and answers 401 or 403 otherwise.

    Args:
        scope: None for any key.
    """

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        return await self.authorise(request)

    async def authorise(self, request: Request) -> Principal:
        """The caller. `ChorusRoute` asks before it reads a body, FastAPI once more for the route's parameter.

        Raises:
            ChorusError, StoreError: see `Callers.authorise`.
        """
        context = context_of(request)
        if context.principal is None:
            services, authorization = services_of(request), request.headers.get("authorization")
            if (token := session_token(request.scope, authorization)) is not None:
                address = request.client.host if request.client else ""
                context.principal = await services.sessions.authorise(token, self.scope, address)
                return context.principal
            callers = services.callers
            caller = callers.known(authorization, self.scope)
            if caller is None:
                address = request.client.host if request.client else ""
                caller = await callers.authorise(authorization, self.scope, address)
            context.principal = caller
        return context.principal


AnyCaller = Annotated[Principal, Depends(Require(None))]
MayInfer = Annotated[Principal, Depends(Require(Scope.INFER))]
MayRead = Annotated[Principal, Depends(Require(Scope.READ))]
MayWrite = Annotated[Principal, Depends(Require(Scope.WRITE))]
MayTune = Annotated[Principal, Depends(Require(Scope.TUNE))]
MayScrape = Annotated[Principal, Depends(Require(Scope.METRICS))]
MayAdminister = Annotated[Principal, Depends(Require(Scope.ADMIN))]
MayOperate = Annotated[Principal, Depends(Require(Scope.OPERATOR))]
