"""The shape of an error in OpenAI's API."""

from __future__ import annotations

from chorus_server.api.schemas.common import AnswerModel


class OpenAIErrorDetail(AnswerModel):
    """What went wrong, in OpenAI's fields."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(AnswerModel):
    """The shape of OpenAI's errors."""

    error: OpenAIErrorDetail
