"""`POST /v1/classify`: labels ranked by their probability after the input."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.disconnect import race
from chorus_server.api.http.responses import INFERENCE_ERRORS
from chorus_server.api.inference.answers import batch_response
from chorus_server.api.inference.calibrated import ranked
from chorus_server.api.inference.calls import Call, call_of, prepared_items
from chorus_server.api.inference.items import Item, classify_items
from chorus_server.api.inference.ranking import score_requests, scores_of
from chorus_server.api.inference.submit import SubmitResult, outcomes
from chorus_server.api.inference.turns import turns
from chorus_server.api.schemas.inference import ClassifyAnswer, ClassifyBody
from chorus_server.engine.requests import ScoreRequest
from chorus_server.errors import ChorusError, InvalidInputError

router = APIRouter(route_class=ChorusRoute, tags=["inference"])


@router.post("/v1/classify", response_model=ClassifyAnswer, responses=INFERENCE_ERRORS)
async def classify(request: Request, body: ClassifyBody, principal: MayInfer) -> Response:
    """Rank labels: a softmax over the sums of their tokens' log probabilities, `</s>` included, as the newest
    calibration of the version corrects them."""
    call = call_of(request, principal, body.deadline_seconds, body.priority)
    return await race(answer_classify(call, body), request.receive)


async def answer_classify(call: Call, body: ClassifyBody) -> Response:
    """The whole answer, of an HTTP request or of a line of a batch."""
    async with prepared_items(call, classify_items(body)) as items:
        labels = [_labels(body, item) for item in items]
        requests = await _score_requests(call, items, labels, sent=body.labels is not None)
        results = await outcomes(call.submit, requests)
        answers = map(partial(_classified, call.serving.base.matrix_dtype), labels, items, results)
        names = (item.identity for item in items)
        return await batch_response(call.request_id, zip(names, answers, strict=True))


def _labels(body: ClassifyBody, item: Item) -> Sequence[str]:
    own = item.version.manifest.labels if item.version is not None else ()
    labels = body.labels if body.labels is not None else own
    if len(labels) < 2:
        has = "one label only" if own else "none of its own"
        which = "" if body.requests is None else f" of {item.task_field}"
        raise InvalidInputError(
            f"labels is required: the version{which} has {has}; send two or more.", field="labels"
        )
    return labels


async def _score_requests(
    call: Call, items: Sequence[Item], labels: Sequence[Sequence[str]], *, sent: bool
) -> list[ScoreRequest]:
    """The engine's request for each item, in order: all are submitted together, whatever their tasks. The
    labels of many versions are many: other requests go on between them."""
    places: dict[int, list[int]] = {}
    for place, each in enumerate(labels):
        places.setdefault(id(each), []).append(place)  # items of one version share theirs
    found: dict[int, ScoreRequest] = {}
    async with aclosing(turns(places.values())) as groups:
        async for group in groups:
            some = [items[place] for place in group]
            made = await score_requests(call, some, labels[group[0]], sent=sent, places=group)
            found.update(zip(group, made, strict=True))
    return [found[place] for place in range(len(items))]


def _classified(
    matrix_dtype: str, labels: Sequence[str], item: Item, outcome: SubmitResult
) -> dict[str, Any] | ChorusError:
    scores = scores_of(outcome)
    if isinstance(scores, ChorusError):
        return scores
    found = ranked(item, labels, scores, matrix_dtype)
    return {
        **item.identity,
        "label": labels[found.place],
        "probabilities": dict(zip(labels, found.probabilities, strict=True)),
        **found.facts,
        "log_probabilities": dict(zip(labels, scores, strict=True)),
        "truncated": item.truncated,
        "usage": item.usage(0),
    }
