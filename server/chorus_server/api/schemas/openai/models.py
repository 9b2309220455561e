"""Answers of `/v1/models`."""

from __future__ import annotations

from typing import Literal

from chorus_server.api.schemas.common import AnswerModel


class ListedModel(AnswerModel):
    """One model, in OpenAI's fields."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class DescribedModel(AnswerModel):
    """The same one for TypeSafe's clients."""

    name: str
    description: str
    release_date: str


class ModelsAnswer(AnswerModel):
    """One list twice: `data` for OpenAI's clients, `models` for TypeSafe's."""

    object: Literal["list"]
    data: list[ListedModel]
    has_more: bool
    models: list[DescribedModel]


class DeletedModel(AnswerModel):
    """What is no more."""

    id: str
    object: Literal["model"]
    deleted: bool
