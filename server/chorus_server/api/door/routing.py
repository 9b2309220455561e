"""The route class of every router. It authorises before a body is read, and parses JSON strictly.

From its first line to its answer a request is *under way*: an ending process waits for it, and gives it up
when time is over.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, get_args

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from chorus_server.api.door.auth import Require
from chorus_server.api.door.early import refuse_early
from chorus_server.api.door.once import makes_once
from chorus_server.api.door.pages import refuse_pages
from chorus_server.api.http.access import PROBES
from chorus_server.api.http.bodies import media_type, read_body
from chorus_server.api.http.json_body import parse_json, parse_long
from chorus_server.api.http.json_counts import Counts, check_texts
from chorus_server.api.services import Services, services_of, share_of
from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from chorus_server.validation import RequestModel, join_path, validation_error

SHORT_BYTES = 16 << 10
"""A body of up to this many bytes is checked on the event loop, in ten milliseconds at worst; a longer one on
a thread."""


class CheckedRequest(Request):
    """A request whose body was checked before FastAPI asks for it, so FastAPI has nothing left to do.

    Attributes:
        checked: an instance of the route's model.
        digest: SHA-256 (hex) of the body, for routes that make something once.
    """

    checked: Any = None
    digest: str | None = None

    async def json(self) -> Any:
        return self.checked


class BodyType:
    """What the body of a route must be.

    Args:
        annotation: a `RequestModel`, or a union of one with None.

    Attributes:
        model: the `RequestModel`.
    """

    def __init__(self, annotation: Any) -> None:
        models = [
            kind
            for kind in (annotation, *get_args(annotation))
            if isinstance(kind, type) and issubclass(kind, RequestModel)
        ]
        if len(models) != 1:
            raise TypeError(f"The body of a route is one RequestModel, not {annotation}.")
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self.model = models[0]

    async def checked(self, services: Services, body: bytearray) -> Any:
        """The body as an instance of its model. A long body is emptied, to free its memory.

        Raises:
            InvalidInputError: says what is wrong first.
        """
        if len(body) <= SHORT_BYTES:
            return self._check(services.settings, body)
        # Not on the tokenising threads: the deadline is in the body, so it is unknown while the body waits.
        return await asyncio.to_thread(self._check, services.settings, body)

    def parsed(self, settings: Settings, body: bytearray) -> Any:
        """The JSON of a body, or of what has one inside, counted first. A long one is emptied.

        Raises:
            InvalidInputError: it is not JSON, or too much of it.
        """
        counts, long_texts = Counts(self.model.most, self.model.others), self.model.long_texts
        if long_texts is None:
            check_texts(body, settings.max_body_bytes)
        if long_texts is None or len(body) <= SHORT_BYTES:
            return parse_json(body, counts=counts)
        return parse_long(body, counts, long_texts)

    def validated(self, value: Any) -> Any:
        """Parsed JSON as an instance of the model. Raises InvalidInputError."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise validation_error(error) from None

    def _check(self, settings: Settings, body: bytearray) -> Any:
        return self.validated(self.parsed(settings, body))


class ChorusRoute(APIRoute):
    """A route that needs a key: it refuses web pages, authorises, reads and parses the body, then runs.

    It cannot be built without a scope.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        door = _find_require(self.dependant)
        if door is None:
            raise TypeError(f"The route {self.path} names no scope.")
        field = self.body_field.field_info if self.body_field is not None else None
        body_type = BodyType(field.annotation) if field is not None else None
        required = field is not None and field.is_required()
        known = {parameter.alias for parameter in self.dependant.query_params}
        probe, once = self.path in PROBES, makes_once(self.dependant)

        async def checked(request: Request) -> Response:
            caller = await door.authorise(request)
            refuse_pages(request, services_of(request), caller)
            lifecycle = services_of(request).lifecycle
            if not probe:
                lifecycle.check_open()
            with lifecycle.under_way():
                return await answered(request)

        async def answered(request: Request) -> Response:
            _check_query(request, known)
            if body_type is None:
                return await handler(request)
            refuse_early(request, door.scope)
            services, inner = services_of(request), CheckedRequest(request.scope, request.receive)
            # An exact copy: a bytearray that has grown keeps an eighth more in reserve.
            body = bytearray(await read_body(request, services.settings.max_body_bytes, share_of(request)))
            inner._body = bytes(body[:1])  # FastAPI only asks whether there is one
            if once:
                inner.digest = await _digest(body)
            if body or required:
                _check_json_type(request)
                inner.checked = await body_type.checked(services, body)
            del body
            return await handler(inner)

        return checked


async def _digest(body: bytearray) -> str:
    if len(body) <= SHORT_BYTES:
        return hashlib.sha256(body).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())


def _find_require(dependant: Dependant) -> Require | None:
    for inner in dependant.dependencies:
        if isinstance(inner.call, Require):
            return inner.call
    return None


def _check_json_type(request: Request) -> None:
    """Refuse a body that is not declared as JSON."""
    kind = media_type(request)
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
