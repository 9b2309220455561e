"""`POST /v1/embeddings`: refused, in a sentence that clients show."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.openai.errors import OpenAIRoute
from chorus_server.api.schemas.openai.embeddings import EmbeddingsBody
from chorus_server.errors import InvalidInputError

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])


@router.post("/v1/embeddings", response_model=None, include_in_schema=False)
async def embeddings(request: Request, body: EmbeddingsBody, principal: MayInfer) -> Response:
    """Refuse: this server makes no embeddings."""
    raise InvalidInputError(
        "This server makes no embeddings: its models answer with text and with labels. Ask /v1/completions, "
        "/v1/chat/completions or /v1/decisions, and another server for embeddings."
    )
