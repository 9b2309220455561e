"""Bodies of the routes of grants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from pydantic import ConfigDict, Field

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import AnswerModel, documented
from chorus_server.validation import Items, RequestModel
from prompts_store.grants.records import RIGHTS, GrantKind, Right


class GrantBody(RequestModel):
    """What a tenant may do from now on with the task, the ensemble or the pack."""

    model_config = ConfigDict(json_schema_extra=documented(examples.GRANT))
    most: ClassVar[Mapping[str, int]] = {"rights": len(RIGHTS)}

    rights: Items[Right] = Field(
        min_length=1, description="`infer`: to ask it. `read`: to see and to download it."
    )


class GrantAnswer(AnswerModel):
    """A grant."""

    grantee: str = Field(description="A tenant, or `*`: all.")
    rights: list[Right]
    created_at: datetime
    created_by: str


class GrantsAnswer(AnswerModel):
    """The grants of a task, an ensemble or a pack, by grantee."""

    grants: list[GrantAnswer]


class SharedAnswer(AnswerModel):
    """A task, an ensemble or a pack of another tenant that the caller's tenant may use."""

    kind: GrantKind
    reference: str = Field(description="As requests name it: `acme/sst2`.")
    rights: list[Right]


class SharedPage(AnswerModel):
    """What others share with the caller's tenant, by owner and name."""

    shared: list[SharedAnswer]
    next_cursor: str | None
