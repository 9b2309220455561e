"""The routes whose bodies the lines of a batch may have, and what answers them there."""

from __future__ import annotations

from collections.abc import Mapping

from chorus_server.api.batch.lines import Endpoint
from chorus_server.api.door.routing import BodyType
from chorus_server.api.http.errors import error_response
from chorus_server.api.openai.errors import openai_error
from chorus_server.api.routes.classify import answer_classify
from chorus_server.api.routes.decisions import answer_decisions
from chorus_server.api.routes.generate import answer_generate
from chorus_server.api.routes.openai_chat import answer_chat
from chorus_server.api.routes.openai_completions import answer_completions
from chorus_server.api.schemas.decisions import DecisionsBody
from chorus_server.api.schemas.inference import ClassifyBody, GenerateBody
from chorus_server.api.schemas.openai.chat import ChatBody
from chorus_server.api.schemas.openai.completions import CompletionsBody
from chorus_server.tuning.document.batch import BatchEndpoint

ENDPOINTS: Mapping[BatchEndpoint, Endpoint] = {
    "/v1/generate": Endpoint(BodyType(GenerateBody), answer_generate, error_response),
    "/v1/classify": Endpoint(BodyType(ClassifyBody), answer_classify, error_response),
    "/v1/decisions": Endpoint(BodyType(DecisionsBody), answer_decisions, openai_error),
    "/v1/completions": Endpoint(BodyType(CompletionsBody), answer_completions, openai_error),
    "/v1/chat/completions": Endpoint(BodyType(ChatBody), answer_chat, openai_error),
}
