"""The route class of uploads. It counts accepted uploads, and refused ones by reason."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.services import services_of
from chorus_server.errors import ChorusError, InternalError
from chorus_server.metrics import OTHER
from prompts_store.artifacts import REASONS
from prompts_store.errors import StoreError

_API_CODES = """
    invalid_input invalid_json unknown_field unsupported_media_type too_large unauthenticated forbidden
    foreign_origin unknown_host unknown_task not_ready shutting_down overloaded internal
    invalid_name invalid_template invalid_labels conflict store_unavailable limit_exceeded
    unknown_version idempotency_key_reused
"""

UPLOAD_REASONS: frozenset[str] = frozenset([*map(str, REASONS), *_API_CODES.split(), OTHER])
"""All values of the metric's label: the reasons for refusing a file, and codes of the API and the store."""


class UploadRoute(ChorusRoute):
    """A `ChorusRoute` whose outcomes are counted. A caller who leaves counts as neither accepted nor
    refused."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def counted(request: Request) -> Response:
            metrics = services_of(request).metrics.api
            try:
                answer = await handler(request)
            except Exception as error:
                metrics.uploads_refused.inc(1, reason_of(error))
                raise
            metrics.uploads_accepted.inc()
            return answer

        return counted


def reason_of(error: Exception) -> str:
    """The label for a refusal: the answer's code, if it is on the list."""
    if isinstance(error, RequestValidationError):
        code = "invalid_input"
    else:
        code = error.code if isinstance(error, ChorusError | StoreError) else InternalError.default_code
    return code if code in UPLOAD_REASONS else OTHER
