"""`POST /v1/ensemble`: several versions answer the same input in one batch, and vote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.disconnect import race
from chorus_server.api.http.responses import INFERENCE_ERRORS
from chorus_server.api.inference.answers import batch_response
from chorus_server.api.inference.ballots import Poll, label_poll, text_poll, voted
from chorus_server.api.inference.calls import Call, call_of, prepare_all
from chorus_server.api.inference.items import Item, inputs_of, weights_of
from chorus_server.api.inference.ranking import shared_labels
from chorus_server.api.inference.submit import outcomes
from chorus_server.api.schemas.common import MAX_ROWS
from chorus_server.api.schemas.inference import EnsembleAnswer, EnsembleBody
from chorus_server.errors import InvalidInputError
from prompts_store.records import EnsembleVersion, PromptVersion

router = APIRouter(route_class=ChorusRoute, tags=["inference"])


@dataclass(frozen=True, slots=True)
class Panel:
    """Who votes.

    Attributes:
        ensemble: the stored ensemble; None if the request lists tasks.
        members: versions with their weights, in order, and the path of the field that named each.
        field: the field of the request that named them.
    """

    ensemble: EnsembleVersion | None
    members: tuple[tuple[PromptVersion, float, str], ...]
    field: str


@router.post("/v1/ensemble", response_model=EnsembleAnswer, responses=INFERENCE_ERRORS)
async def ensemble(request: Request, body: EnsembleBody, principal: MayInfer) -> Response:
    """Majority vote. Members that share labels vote by ranking them, others by their greedy text."""
    call = call_of(request, principal, body.deadline_seconds, body.priority)
    return await race(_answer(call, body), request.receive)


async def _answer(call: Call, body: EnsembleBody) -> Response:
    inputs = inputs_of(body)
    async with AsyncExitStack() as stack:
        async with call.in_time():
            panel = await stack.enter_async_context(_panel(call, body))
            rows = len(inputs) * len(panel.members)
            if rows > MAX_ROWS:
                raise InvalidInputError(
                    f"{len(inputs)} inputs for {len(panel.members)} members are {rows} rows, the limit is "
                    f"{MAX_ROWS}.",
                    field="inputs" if body.inputs is not None else panel.field,
                )
            settings = {} if body.max_new_tokens is None else {"max_new_tokens": body.max_new_tokens}
            paths = dict.fromkeys(settings, "max_new_tokens")
            pairs = [
                (
                    Item(
                        None,
                        value,
                        field,
                        named_by,
                        bool(body.truncate),
                        settings=settings,
                        paths=paths,
                        special_tokens=body.special_tokens,
                    ),
                    version,
                )
                for value, field in inputs
                for version, _, named_by in panel.members
            ]
            items = await prepare_all(call, pairs)
        poll = await _poll(call, body, panel, items)
        results = await outcomes(call.submit, poll.requests)
        size = len(panel.members)
        weights = [weight for _, weight, _ in panel.members]
        name = {"ensemble": _name(panel.ensemble)}
        votes = (
            (
                name,
                voted(name, items[at : at + size], weights, poll, results[at : at + size], call.request_id),
            )
            for at in range(0, rows, size)
        )
        return await batch_response(call.request_id, votes)


async def _poll(call: Call, body: EnsembleBody, panel: Panel, items: Sequence[Item]) -> Poll:
    labels = (
        body.labels
        if body.labels is not None
        else list(shared_labels([version for version, _, _ in panel.members]))
    )
    if labels:
        if body.max_new_tokens is not None and body.labels is not None:
            raise InvalidInputError(
                "A vote among labels generates no text: remove max_new_tokens or labels.",
                field="max_new_tokens",
            )
        return await label_poll(call, items, labels, sent=body.labels is not None)
    return await text_poll(call, items)


@asynccontextmanager
async def _panel(call: Call, body: EnsembleBody) -> AsyncIterator[Panel]:
    if (body.tasks is None) == (body.ensemble is None):
        raise InvalidInputError("Send one of tasks (a list) and ensemble (a reference).", field="tasks")
    library, tenant = call.services.library, call.principal.tenant
    patterns = call.principal.tasks
    stored: EnsembleVersion | None = None
    if body.ensemble is not None:
        if body.weights is not None:
            raise InvalidInputError("A stored ensemble has its own weights: remove weights.", field="weights")
        stored = await library.ensemble(body.ensemble, tenant, patterns=patterns)
        # The caller named the ensemble, and it names its members: its owner may ask them.
        tenant, patterns = stored.tenant, None
        references = [f"{member.tenant}/{member.task}@{member.version}" for member in stored.members]
        wanted = [(reference, "ensemble") for reference in references]
        weights = [member.weight for member in stored.members]
    else:
        references = list(body.tasks or [])
        wanted = [(reference, f"tasks.{index}") for index, reference in enumerate(references)]
        weights = weights_of(body.weights, len(references))
    fingerprint = call.serving.base.fingerprint
    async with library.held(wanted, tenant, fingerprint, patterns=patterns) as versions:
        members = tuple(
            (versions[name], weight, field) for (name, field), weight in zip(wanted, weights, strict=True)
        )
        yield Panel(stored, members, "tasks" if stored is None else "ensemble")


def _name(ensemble: EnsembleVersion | None) -> dict[str, Any] | None:
    if ensemble is None:
        return None
    return {"task": f"{ensemble.tenant}/{ensemble.name}", "version": ensemble.number}
