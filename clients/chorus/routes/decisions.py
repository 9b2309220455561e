"""`/v1/decisions`, `/v1/systemone` and `/v1/models`: typed questions about one input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chorus.methods import Method
from chorus.routes.tasks import get_page
from chorus.types import Decisions, ModelList, SystemOne
from chorus.wire import Call, Request, encode_json, model_of


def decide(
    model: str, input: str | Sequence[Mapping[str, Any]], questions: Sequence[Mapping[str, Any]]
) -> Call[Decisions]:
    """Answer up to 400 typed questions about one input, in the fields of OpenAI's `decisions.create`.

    Args:
        model: a pack, a task, or `base`.
        input: a text, or messages.
        questions: each with a `type`: `predicate`, `choice` with `choices`, or `score` with `levels`.

    Raises:
        ApiError: a question is malformed or cannot be answered; the message names it.
    """
    whole = input if isinstance(input, str) else list(input)
    body = {"model": model, "input": whole, "questions": list(questions)}
    return Call(Request("POST", "/v1/decisions", body=encode_json(body), inference=True), model_of(Decisions))


def system_one(model: str, state: Any, questions: Mapping[str, Mapping[str, Any]]) -> Call[SystemOne]:
    """The same in the fields of TypeSafe's System One.

    Args:
        state: a text, an object or a list.
        questions: by id, each with a `type`: `noul`, `choice` or `score`, and its `criteria`.
    """
    body = {"model": model, "state": state, "questions": dict(questions)}
    return Call(Request("POST", "/v1/systemone", body=encode_json(body), inference=True), model_of(SystemOne))


def models() -> Call[ModelList]:
    """What `model` may be: names that the operator has mapped, the base, packs and tasks."""
    return Call(get_page("/v1/models", ()), model_of(ModelList))


class DecisionMethods:
    """The methods of the client for decisions."""

    decide = Method(decide)
    system_one = Method(system_one)
    models = Method(models)
