"""`POST /v1/classify`: labels ranked by their probability after the input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from server.api.http.auth import MayInfer
from server.api.http.disconnect import race
from server.api.http.responses import INFERENCE_ERRORS
from server.api.http.routing import ChorusRoute
from server.api.inference.answers import batch_response
from server.api.inference.items import classify_items
from server.api.inference.ranking import best, score_requests, scores_of, softmax
from server.api.inference.submit import Outcome, outcomes
from server.api.inference.work import Call, Work, call_of, identity, prepared_items, usage
from server.api.schemas.inference import ClassifyAnswer, ClassifyBody
from server.errors import ChorusError, InvalidInputError

router = APIRouter(route_class=ChorusRoute, tags=["inference"])


@router.post("/v1/classify", response_model=ClassifyAnswer, responses=INFERENCE_ERRORS)
async def classify(request: Request, body: ClassifyBody, principal: MayInfer) -> Response:
    """Rank labels: a softmax over the sums of their tokens' log probabilities, `</s>` included."""
    return await race(_answer(call_of(request, principal, body.deadline_seconds), body), request.receive)


async def _answer(call: Call, body: ClassifyBody) -> Response:
    async with prepared_items(call, classify_items(body)) as works:
        labels = _labels(body, works[0])
        requests = await score_requests(call, works, labels, sent=body.labels is not None)
        results = await outcomes(call.submit, requests)
        answers = map(partial(_classified, labels), works, results)
        names = (identity(work.version) for work in works)
        return await batch_response(call.request_id, zip(names, answers, strict=True))


def _labels(body: ClassifyBody, work: Work) -> list[str]:
    own = list(work.version.manifest.labels) if work.version is not None else []
    labels = body.labels if body.labels is not None else own
    if len(labels) < 2:
        has = "one label only" if own else "none of its own"
        raise InvalidInputError(
            f"labels is required: the task's version has {has}; send two or more.", field="labels"
        )
    return labels


def _classified(labels: Sequence[str], work: Work, outcome: Outcome) -> dict[str, Any] | ChorusError:
    scores = scores_of(outcome)
    if isinstance(scores, ChorusError):
        return scores
    return {
        **identity(work.version),
        "label": labels[best(scores)],
        "probabilities": dict(zip(labels, softmax(scores), strict=True)),
        "log_probabilities": dict(zip(labels, scores, strict=True)),
        "truncated": work.prepared.truncated,
        "usage": usage(work.prepared, 0),
    }
