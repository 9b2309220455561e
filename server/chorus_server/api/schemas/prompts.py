"""Bodies of the routes of tasks, versions, aliases, ensembles and packs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from chorus_server.api.schemas import examples
from chorus_server.api.schemas.common import MAX_MEMBERS, AnswerModel, Reference, Weight, documented
from chorus_server.api.schemas.question_models import MAX_CHOICES
from chorus_server.api.schemas.questions import MAX_QUESTIONS
from chorus_server.validation import Items, RequestModel

Label = Annotated[str, Field(min_length=1, max_length=512)]
VersionNumber = Annotated[int, Field(ge=1, le=2_147_483_647)]


class UploadMetadata(RequestModel):
    """What an uploader says about a prompt. It overrides what the file says."""

    template: str | None = Field(None, description="Input template, `{name}` fields only.")
    labels: Items[str] | None = Field(None, description="Answers of a classification task, in order.")
    settings: dict[str, Any] | None = Field(None, description="Default generation settings, by REST name.")
    base_fingerprint: str | None = Field(
        None, max_length=128, description="Fingerprint of the base model that it was tuned on."
    )
    task_index: int | None = Field(
        None,
        ge=0,
        le=2_147_483_647,
        description="Which task's prompt to take of a PEFT adapter of several tasks, counted from 0.",
    )
    lineage: dict[str, Any] | None = Field(None, description="Where it came from, in any form.")
    metrics: dict[str, float] | None = Field(None, description="Measured values by name.")
    description: str | None = Field(None, max_length=4096, description="Description of the task.")


class AliasBody(RequestModel):
    """The version that an alias is to name."""

    model_config = ConfigDict(json_schema_extra=documented(examples.ALIAS))

    version: VersionNumber
    expected: int | None = Field(
        None,
        ge=0,
        le=2_147_483_647,
        description="The version that it names now, 0 if there is no such alias. If it names another: 409, "
        "`alias_moved`.",
    )


class RollbackBody(RequestModel):
    """The alias to move back to its previous version."""

    model_config = ConfigDict(json_schema_extra=documented(examples.ROLLBACK))

    alias: str = Field("live", min_length=1, max_length=128)
    version: VersionNumber | None = Field(
        None, description="Where it is to go, from `back`. If it would go elsewhere: 409, `alias_moved`."
    )
    expected: VersionNumber | None = Field(
        None, description="The version that it names now. If it names another: 409, `alias_moved`."
    )


class EnsembleVersionBody(RequestModel):
    """A new version of a stored ensemble. Members are pinned to the versions that the references name now."""

    model_config = ConfigDict(json_schema_extra=documented(examples.ENSEMBLE_VERSION))
    most: ClassVar[Mapping[str, int]] = {"tasks": MAX_MEMBERS, "weights": MAX_MEMBERS}

    tasks: Items[Reference] = Field(min_length=1)
    vote: Literal["majority"] = "majority"
    weights: Items[Weight] | None = Field(None, description="One weight for each of `tasks`.")


class PackQuestion(RequestModel):
    """What answers a question of a pack."""

    task: Reference
    values: dict[Label, Label] = Field(
        default_factory=dict,
        description="The version's label of each value of the question; not needed where they are equal.",
    )


class PackVersionBody(RequestModel):
    """A new version of a decision pack. Questions are pinned to the versions that the references name now."""

    model_config = ConfigDict(json_schema_extra=documented(examples.PACK_VERSION))
    most: ClassVar[Mapping[str, int]] = {"questions": MAX_QUESTIONS, "values": MAX_CHOICES}

    questions: dict[str, PackQuestion] = Field(min_length=1, description="By the ids that requests use.")
    unknown_questions: Literal["refuse", "base"] = Field(
        "refuse", description="What happens to a question that is not in the pack."
    )


class VersionAnswer(AnswerModel):
    """One immutable version."""

    task: str
    version: int
    digest: str
    manifest_digest: str
    kind: Literal["soft_prompt"]
    length: int
    width: int
    base_fingerprint: str | None
    template: str
    labels: list[str]
    settings: dict[str, Any]
    lineage: dict[str, Any]
    metrics: dict[str, float]
    created_at: datetime
    created_by: str
    aliases: list[str]
    calibration: int | None = Field(None, description="The number of the newest, which serves.")
    created: bool | None = Field(
        None, description="Only in the answer to an upload: false if it was there already."
    )
    notes: list[str] | None = Field(None, description="Only in the answer to an upload: what was converted.")


class VersionPage(AnswerModel):
    """Versions, newest first."""

    versions: list[VersionAnswer]
    next_cursor: str | None


class AliasMoveAnswer(AnswerModel):
    """An alias after it moved."""

    alias: str
    version: int | None
    previous: int | None


class AliasHistoryEntry(AliasMoveAnswer):
    """One move."""

    moved_at: datetime
    moved_by: str


class LiveVersionAnswer(AnswerModel):
    """The version that `live` names, in short."""

    version: int
    labels: list[str]
    metrics: dict[str, float]


class TaskAnswer(AnswerModel):
    """A task."""

    task: str
    description: str
    created_at: datetime
    versions: int
    latest: int
    aliases: dict[str, int]
    live: LiveVersionAnswer | None = Field(description="Null if the task has no alias `live`.")
    last_move: AliasHistoryEntry | None = Field(description="The newest move of any of its aliases.")


class TaskPage(AnswerModel):
    """Tasks, by name."""

    tasks: list[TaskAnswer]
    next_cursor: str | None


class AliasesAnswer(AnswerModel):
    """Where the aliases of a task, an ensemble or a pack point now, and a page of their moves:
    the newest, oldest first."""

    aliases: dict[str, int]
    back: dict[str, int] = Field(
        description="To which version a rollback of each alias would go; without those that have nothing to "
        "go back to."
    )
    history: list[AliasHistoryEntry]
    next_cursor: str | None = Field(description="Leads to older moves.")


class MemberName(AnswerModel):
    """A member pinned to a version."""

    task: str
    version: int
    weight: float


class StoredEnsemble(AnswerModel):
    """One version of an ensemble."""

    ensemble: str
    version: int
    vote: Literal["majority"]
    members: list[MemberName]
    digest: str
    created_at: datetime
    aliases: dict[str, int]
    back: dict[str, int] = Field(description="To which version a rollback of each alias would go.")


class EnsembleVersionPage(AnswerModel):
    """Versions of an ensemble, newest first."""

    versions: list[StoredEnsemble]
    next_cursor: str | None


class PinnedQuestion(AnswerModel):
    """What answers a question of a pack."""

    task: str
    version: int
    values: dict[str, str]


class StoredPack(AnswerModel):
    """One version of a decision pack."""

    pack: str
    version: int
    questions: dict[str, PinnedQuestion]
    unknown_questions: Literal["refuse", "base"]
    digest: str
    created_at: datetime
    aliases: dict[str, int]
    back: dict[str, int] = Field(description="To which version a rollback of each alias would go.")


class PackVersionPage(AnswerModel):
    """Versions of a pack, newest first."""

    versions: list[StoredPack]
    next_cursor: str | None


class PackPage(AnswerModel):
    """Packs by name, the newest version of each."""

    packs: list[StoredPack]
    next_cursor: str | None


class EnsemblePage(AnswerModel):
    """Ensembles by name, the newest version of each."""

    ensembles: list[StoredEnsemble]
    next_cursor: str | None
