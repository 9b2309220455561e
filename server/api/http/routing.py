"""The route class of every router: who asks is settled before a body is read, and JSON is parsed strictly.

From its first line to its answer a request is *under way*: the process waits for it before it ends, and gives
it up when time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from server.api.http.access import PROBES
from server.api.http.auth import Require
from server.api.http.json_body import join_path, parse_json, read_body
from server.api.services import services_of
from server.errors import InvalidInputError


class CheckedRequest(Request):
    """A request whose JSON was parsed by `parse_json` before FastAPI asked for it."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class ChorusRoute(APIRoute):
    """A route that needs a key: authorises, then reads and parses the body, then runs.

    Refuses to exist without a scope.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        door = _find_require(self.dependant)
        if door is None:
            raise TypeError(f"The route {self.path} asks for no scope.")
        has_body = self.body_field is not None
        required = self.body_field is not None and self.body_field.field_info.is_required()
        known = {parameter.alias for parameter in self.dependant.query_params}
        probe = self.path in PROBES

        async def checked(request: Request) -> Response:
            door.authorise(request)
            lifecycle = services_of(request).lifecycle
            if not probe:
                lifecycle.check_open()
            with lifecycle.under_way():
                return await answered(request)

        async def answered(request: Request) -> Response:
            _check_query(request, known)
            if not has_body:
                return await handler(request)
            inner = CheckedRequest(request.scope, request.receive)
            inner._body = await read_body(request, services_of(request).settings.max_body_bytes)
            if inner._body or required:
                _check_json_type(request)
                inner.parsed = parse_json(inner._body)
            return await handler(inner)

        return checked


def _find_require(dependant: Dependant) -> Require | None:
    for inner in dependant.dependencies:
        if isinstance(inner.call, Require):
            return inner.call
    return None


def _check_json_type(request: Request) -> None:
    """Refuse a body that does not say it is JSON: browsers send such bodies to other sites unasked."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise InvalidInputError(
            "The body is JSON: send it with 'Content-Type: application/json'.",
            field="content-type",
            code="unsupported_media_type",
        )


def _check_query(request: Request, known: set[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise InvalidInputError(
                "There is no such query parameter: remove it or correct its name.",
                field=join_path("", name),
                code="unknown_field",
            )
