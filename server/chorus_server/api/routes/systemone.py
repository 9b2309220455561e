"""`POST /v1/systemone`: typed questions about a state, in the fields of TypeSafe's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from chorus_server.api.decisions.answering import decide
from chorus_server.api.decisions.confidence import choice_confidence, expected_level, score_confidence
from chorus_server.api.decisions.shapes import SYSTEM_ONE_ERRORS, SystemOneRoute
from chorus_server.api.door.auth import MayInfer
from chorus_server.api.http.disconnect import race
from chorus_server.api.inference.calls import Call, call_of
from chorus_server.api.inference.ranking import best
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.schemas.decisions import SystemOneAnswer, SystemOneBody
from chorus_server.api.schemas.questions import Question

router = APIRouter(route_class=SystemOneRoute, tags=["decisions"])


@router.post("/v1/systemone", response_model=SystemOneAnswer, responses=SYSTEM_ONE_ERRORS)
async def systemone(request: Request, body: SystemOneBody, principal: MayInfer) -> Response:
    """Answer up to 400 typed questions about one state."""
    call = call_of(request, principal, None, "interactive")
    return await race(_answer(call, body), request.receive)


async def _answer(call: Call, body: SystemOneBody) -> Response:
    decided = await decide(call, body.model, body.state, body.questions, truncate=bool(body.truncate))
    answers = await in_turns(_written, decided.questions, decided.probabilities)
    usage = to_json({"input_tokens": decided.input_tokens, "output_tokens": 0})
    written = b'{"model":%b,"answers":{%b},"usage":%b}' % (to_json(decided.model), b",".join(answers), usage)
    return Response(written, media_type="application/json")


def _written(question: Question, probabilities: Sequence[float]) -> bytes:
    """One member of `answers`."""
    return to_json(question.id) + b":" + to_json(_answered(question, probabilities))


def _answered(question: Question, probabilities: Sequence[float]) -> dict[str, Any]:
    if question.kind == "predicate":
        return {"type": "noul", "noul": probabilities[0]}
    if question.kind == "choice":
        names = [option.text for option in question.options]
        return {
            "type": "choice",
            "choice": names[best(probabilities)],
            "probabilities": dict(zip(names, probabilities, strict=True)),
            "confidence": choice_confidence(probabilities),
        }
    # A null level is not null in the legend, because the official client reads none there.
    legend = (option.text if option.given is None else option.given for option in question.options)
    return {
        "type": "score",
        "score": expected_level(probabilities),
        "legend": {str(level): given for level, given in enumerate(legend)},
        "probabilities": {str(level): p for level, p in enumerate(probabilities)},
        "confidence": score_confidence(probabilities),
    }
