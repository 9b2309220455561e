"""The shape of an inference answer: items in the order asked, failures per item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from pydantic_core import to_json

from server.api.http.errors import error_body, error_response
from server.errors import ChorusError, InternalError


def json_response(payload: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON answer; what is not finite becomes null, so that it stays JSON."""
    return Response(to_json(payload, inf_nan_mode="null"), status, media_type="application/json")


def batch_response(
    request_id: str, results: Sequence[dict[str, Any] | ChorusError], names: Sequence[Any]
) -> Response:
    """The answer to a batch: 200 if one item succeeded, else the first item's error.

    Args:
        results: an answer or an error for each item.
        names: what identifies each item in its error (`{"task": ...}`).
    """
    errors = [result for result in results if isinstance(result, ChorusError)]
    if errors and len(errors) == len(results):
        return error_response(errors[0], request_id)
    items = [
        failed_item(name, result, request_id) if isinstance(result, ChorusError) else result
        for name, result in zip(names, results, strict=True)
    ]
    return json_response({"id": request_id, "results": items})


def failed_item(name: Mapping[str, Any], error: ChorusError, request_id: str) -> dict[str, Any]:
    """One item that failed after validation."""
    return {**name, "error": error_body(error, request_id)}


def unexpected(outcome: object) -> ChorusError:
    """The engine answered with another kind of event than the request asks for, which is a defect."""
    return InternalError(f"The engine answered with {type(outcome).__name__}.")
