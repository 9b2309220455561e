"""`POST /v1/decisions`: typed questions about an input, in the fields of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.decisions.answering import decide
from chorus_server.api.decisions.confidence import choice_confidence, expected_level, score_confidence
from chorus_server.api.door.auth import MayInfer
from chorus_server.api.http.disconnect import race
from chorus_server.api.inference.answers import list_response
from chorus_server.api.inference.calls import Call, call_of
from chorus_server.api.inference.ranking import best
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute
from chorus_server.api.openai.shapes import usage_in_details
from chorus_server.api.schemas.decisions import DecisionsAnswer, DecisionsBody
from chorus_server.api.schemas.questions import Question

router = APIRouter(route_class=OpenAIRoute, tags=["decisions"])


@router.post("/v1/decisions", response_model=DecisionsAnswer, responses=OPENAI_ERRORS)
async def decisions(request: Request, body: DecisionsBody, principal: MayInfer) -> Response:
    """Answer up to 400 typed questions about one input."""
    call = call_of(request, principal, None, "interactive")
    return await race(answer_decisions(call, body), request.receive)


async def answer_decisions(call: Call, body: DecisionsBody) -> Response:
    """The whole answer, of an HTTP request or of a line of a batch."""
    decided = await decide(call, body.model, body.input, body.questions, truncate=bool(body.truncate))
    answers = (
        _answered(question, probabilities)
        for question, probabilities in zip(decided.questions, decided.probabilities, strict=True)
    )
    after = {"usage": usage_in_details(decided.input_tokens, 0)}
    return await list_response("answers", answers, before={"model": decided.model}, after=after)


def _answered(question: Question, probabilities: Sequence[float]) -> dict[str, Any]:
    named = {"type": question.kind, "name": question.id}
    pairs = list(zip(question.options, probabilities, strict=True))
    if question.kind == "predicate":
        return named | {"probability": probabilities[0]}
    if question.kind == "choice":
        return named | {
            "choice": question.options[best(probabilities)].given,
            "confidence": choice_confidence(probabilities),
            "probabilities": [{"value": option.given, "probability": p} for option, p in pairs],
        }
    return named | {
        "score": expected_level(probabilities),
        "confidence": score_confidence(probabilities),
        "probabilities": [
            {"label": option.text, "value": level, "probability": p}
            for level, (option, p) in enumerate(pairs)
        ],
    }
