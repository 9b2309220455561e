"""`POST /v1/classify`: labels ranked by their probability after the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from server.api.http.auth import MayInfer
from server.api.http.context import request_id_of
from server.api.http.disconnect import race
from server.api.http.responses import INFERENCE_ERRORS
from server.api.http.routing import ChorusRoute
from server.api.inference.answers import batch_response, unexpected
from server.api.inference.items import classify_items, deadline_of
from server.api.inference.prepare import label_targets
from server.api.inference.submit import Outcome, origin_of, outcomes
from server.api.inference.work import Call, Work, identity, name_of, prepared_items, usage
from server.api.schemas.inference import ClassifyAnswer, ClassifyBody
from server.api.services import services_of
from server.engine.requests import ScoredEvent, ScoreRequest
from server.errors import ChorusError, InternalError, InvalidInputError

router = APIRouter(route_class=ChorusRoute, tags=["inference"])


@router.post("/v1/classify", response_model=ClassifyAnswer, responses=INFERENCE_ERRORS)
async def classify(request: Request, body: ClassifyBody, principal: MayInfer) -> Response:
    """Rank labels: a softmax over the sums of their tokens' log probabilities, `</s>` included."""
    services = services_of(request)
    call = Call(
        services,
        services.ready(),
        principal,
        request_id_of(request),
        deadline_of(body.deadline_seconds, services.settings),
    )
    return await race(_answer(call, body), request.receive)


async def _answer(call: Call, body: ClassifyBody) -> Response:
    async with prepared_items(call, classify_items(body, call.services.settings.max_batch_rows)) as works:
        labels = _labels(call, body, works[0])
        targets = tuple(
            label_targets(call.serving.vocabulary, labels, call.serving.limits.max_target_tokens, "labels")
        )
        requests = [score_request(call, index, work, targets) for index, work in enumerate(works)]
        results = await outcomes(call.serving.engine.submit_all, requests)
        answers = [_classified(work, labels, outcome) for work, outcome in zip(works, results, strict=True)]
        return batch_response(call.request_id, answers, [identity(work.version) for work in works])


def score_request(call: Call, index: int, work: Work, targets: tuple[tuple[int, ...], ...]) -> ScoreRequest:
    """The engine's request for one item."""
    task = name_of(work.version) if work.version is not None else ""
    origin = origin_of(call.principal, call.request_id, index, task, call.deadline_seconds)
    return ScoreRequest(origin, work.prepared.parts, targets)


def check_label_count(labels: Sequence[str], limit: int) -> None:
    """Raise InvalidInputError for more labels than the server ranks."""
    if len(labels) > limit:
        raise InvalidInputError(f"There are {len(labels)} labels, the limit is {limit}.", field="labels")


def _labels(call: Call, body: ClassifyBody, work: Work) -> list[str]:
    own = list(work.version.manifest.labels) if work.version is not None else []
    labels = body.labels if body.labels is not None else own
    if len(labels) < 2:
        raise InvalidInputError(
            "labels is required: the task's version has none of its own; send two or more.", field="labels"
        )
    check_label_count(labels, call.services.settings.max_labels)
    return labels


def _classified(work: Work, labels: Sequence[str], outcome: Outcome) -> dict[str, Any] | ChorusError:
    if isinstance(outcome, ChorusError):
        return outcome
    if not isinstance(outcome, ScoredEvent):
        return unexpected(outcome)
    scores = outcome.log_probabilities
    if any(math.isnan(score) for score in scores):
        return InternalError("The model's scores are not numbers: the prompt's values may be damaged.")
    best = max(range(len(labels)), key=scores.__getitem__)
    return {
        **identity(work.version),
        "label": labels[best],
        "probabilities": dict(zip(labels, softmax(scores), strict=True)),
        "log_probabilities": dict(zip(labels, scores, strict=True)),
        "truncated": work.prepared.truncated,
        "usage": usage(work.prepared, 0),
    }


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities from log probabilities; equal shares when all are minus infinity."""
    top = max(scores)
    if top == -math.inf:
        return [1 / len(scores)] * len(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]
