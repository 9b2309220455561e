"""`.../neighbors`: the vocabulary pieces nearest to each prompt row, and how far training moved it (Lester et
al. 2021, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from chorus_server.api.door.auth import MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.errors import StoreAnswerError
from chorus_server.api.http.parameters import TaskName, TenantName, VersionInPath
from chorus_server.api.http.responses import READ_ERRORS
from chorus_server.api.inference.answers import list_response
from chorus_server.api.library.resolve import PromptLibrary, check_base
from chorus_server.api.library.shared import task_to_read
from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.services import Serving, services_of
from chorus_server.errors import ModelMismatchError
from chorus_server.tenancy.principal import Principal
from chorus_server.tuning.training.beginning import began_from, first_values
from chorus_server.tuning.training.initialisers import InitialiserSource
from prompts_store.records import PromptVersion

router = APIRouter(route_class=ChorusRoute, tags=["versions"])

_BLOCK_PIECES = 4096

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Neighbor(AnswerModel):
    """A vocabulary piece near a prompt row."""

    piece: str
    id: int
    cosine: float


class RowMovement(AnswerModel):
    """A row against the values that its training began with."""

    cosine: float
    distance: float


class NeighborRow(AnswerModel):
    """One prompt row."""

    row: int
    norm: float
    neighbors: list[Neighbor]
    moved: RowMovement | None = Field(
        description="Since the training's first step; null for a version whose lineage does not tell with "
        "which values it began, as one that was uploaded, and for one that began with a prompt that the "
        "caller may not see."
    )


class NeighborsAnswer(AnswerModel):
    """The nearest vocabulary pieces of each row, by cosine."""

    task: str
    version: int
    rows: list[NeighborRow]


@router.get("/v1/tasks/{task}/versions/{n}/neighbors", response_model=NeighborsAnswer, responses=READ_ERRORS)
async def neighbors(
    request: Request,
    principal: MayRead,
    task: TaskName,
    n: VersionInPath,
    top_k: Annotated[int, Query(ge=1, le=50, description="Pieces for each row.")] = 5,
    tenant: TenantName = None,
) -> Response:
    """The nearest vocabulary pieces of each prompt row, by cosine, and how far training moved the row."""
    services = services_of(request)
    serving = services.ready()
    library = services.library
    owner = await task_to_read(library, principal, tenant, task)
    version = await library.read(library.store.get_version, owner, task, n)
    check_base(version, serving.base.fingerprint, "n")
    if version.manifest.width != serving.base.width:
        raise ModelMismatchError(
            f"The prompt is {version.manifest.width} wide, but the model {serving.base.width}.", field="n"
        )
    began = await _began_from(library, principal, version)
    rows = await services.text.run(_neighbor_rows, library, version, began, serving, top_k)
    named = {"task": f"{version.tenant}/{version.task}", "version": version.number}
    return await list_response("rows", rows, before=named)


async def _began_from(
    library: PromptLibrary, principal: Principal, version: PromptVersion
) -> PromptVersion | None:
    """The version that this one's training began with, if there was one and the caller may see it."""
    reference = began_from(version)
    if reference is None:
        return None
    whole = reference if "/" in reference else f"{version.tenant}/{reference}"
    try:
        return await library.resolve(whole, principal.tenant, "n", patterns=principal.tasks, right="read")
    except StoreAnswerError:
        return None


def _neighbor_rows(
    library: PromptLibrary,
    version: PromptVersion,
    began: PromptVersion | None,
    serving: Serving,
    top_k: int,
) -> list[dict[str, Any]]:
    values, table = _values(library, version), serving.base.embeddings()
    ids, cosines = nearest(values, table, top_k)
    norms, piece = np.linalg.norm(values, axis=1), serving.vocabulary.piece

    def embed(ids: Sequence[int]) -> Floats:
        return np.asarray(table[list(ids)], np.float32)

    def source() -> InitialiserSource:
        return InitialiserSource(serving.vocabulary, embed, serving.base.width)

    first = first_values(version, source, None if began is None else _values(library, began))
    moved = [None] * len(values) if first is None else _movements(values, first)
    return [
        {
            "row": row,
            "norm": float(norms[row]),
            "neighbors": [
                {"piece": piece(int(id)), "id": int(id), "cosine": float(cosine)}
                for id, cosine in zip(ids[row], cosines[row], strict=True)
            ],
            "moved": moved[row],
        }
        for row in range(len(values))
    ]


def _values(library: PromptLibrary, version: PromptVersion) -> Floats:
    with library.store.hold(version):
        return library.store.values(version.manifest.digest)


def _movements(values: Floats, first: Floats) -> list[dict[str, float]]:
    cosines = (_unit(values) * _unit(first)).sum(axis=1)
    distances = np.linalg.norm(values - first, axis=1)
    return [
        {"cosine": float(cosine), "distance": float(distance)}
        for cosine, distance in zip(cosines, distances, strict=True)
    ]


def nearest(values: Floats, table: np.ndarray[Any, Any], top_k: int) -> tuple[np.ndarray[Any, Any], Floats]:
    """The nearest rows of a table by cosine, computed one block of the table at a time.

    Args:
        values: `[P, D]` f32.
        table: `[V, D]`, any float type; rows of zeros are never near.
        top_k: at most V.

    Returns:
        Ids `[P, top_k]` and cosines `[P, top_k]`, nearest first; equal ones in the order of ids.
    """
    P, top_k = len(values), min(top_k, len(table))
    rows = _unit(values)
    best_ids = np.zeros((P, 0), np.int64)
    best = np.zeros((P, 0), np.float32)
    for start in range(0, len(table), _BLOCK_PIECES):
        block = _unit(np.asarray(table[start : start + _BLOCK_PIECES], np.float32))
        ids, cosines = np.arange(start, start + len(block)), (block @ rows.T).T
        # Most pieces are near to no row, and need no sorting.
        if best.shape[1] == top_k:
            some = (cosines > best[:, -1:]).any(axis=0)
        else:
            some = (cosines >= _least(cosines, top_k)).any(axis=0)
        ids, cosines = ids[some], cosines[:, some]
        best_ids = np.concatenate([best_ids, np.broadcast_to(ids, cosines.shape)], axis=1)
        best = np.concatenate([best, cosines], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top_k]
        best_ids, best = np.take_along_axis(best_ids, order, 1), np.take_along_axis(best, order, 1)
    return best_ids, best


def _least(cosines: Floats, top_k: int) -> Floats:
    """The least of each row's largest, `[P, 1]`."""
    place = max(0, cosines.shape[1] - top_k)
    least: Floats = np.partition(cosines, place, axis=1)[:, place : place + 1]
    return least


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit
