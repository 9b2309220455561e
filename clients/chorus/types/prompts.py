"""Tasks, versions, aliases and stored ensembles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from chorus.types.base import Wire


class Version(Wire):
    """One immutable version of a task.

    Attributes:
        digest: SHA-256 of the prompt's values, whatever file format they came in.
        manifest_digest: this also covers template, labels, settings and base.
        length, width: the prompt's shape is `[length, width]`.
        calibration: number of the newest one, which serves; None if there is none.
        created: only in the answer to an upload: False if the same manifest was there already.
        notes: what was converted when the file was read.
    """

    task: str
    version: int
    digest: str
    manifest_digest: str
    kind: str = "soft_prompt"
    length: int
    width: int
    base_fingerprint: str | None = None
    template: str = "{text}"
    labels: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    lineage: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    created_at: datetime
    created_by: str = ""
    aliases: list[str] = Field(default_factory=list)
    calibration: int | None = None
    created: bool | None = None
    notes: Annotated[list[str], BeforeValidator(lambda notes: notes or [])] = Field(default_factory=list)


class VersionPage(Wire):
    """Part of a task's versions, newest first."""

    versions: list[Version]
    next_cursor: str | None = None


class AliasMove(Wire):
    """Where an alias points now, and where it pointed before; None means nowhere."""

    alias: str
    version: int | None
    previous: int | None = None


class AliasHistoryEntry(AliasMove):
    """One past move of an alias."""

    moved_at: datetime
    moved_by: str = ""


class LiveVersion(Wire):
    """The version that `live` names, in short: `tasks.version` has all of it."""

    version: int
    labels: list[str] = Field(default_factory=list)
    metrics: dict[str, float] = Field(default_factory=dict)


class Task(Wire):
    """A task with the number of its live versions and where its aliases point.

    Attributes:
        live: None if it has no alias `live`.
        last_move: the newest move of any of its aliases.
    """

    task: str
    description: str = ""
    created_at: datetime
    versions: int
    latest: int | None = None
    aliases: dict[str, int] = Field(default_factory=dict)
    live: LiveVersion | None = None
    last_move: AliasHistoryEntry | None = None


class TaskPage(Wire):
    """Part of the list of tasks. `next_cursor` is None on the last page."""

    tasks: list[Task]
    next_cursor: str | None = None


class Aliases(Wire):
    """The aliases of a task, an ensemble or a pack, and their moves, oldest first: every one, or a page.

    Attributes:
        back: to which version a rollback of each alias would go; without those that have nothing to go back
            to.
    """

    aliases: dict[str, int]
    back: dict[str, int] = Field(default_factory=dict)
    history: list[AliasHistoryEntry] = Field(default_factory=list)
    next_cursor: str | None = None


class Neighbor(Wire):
    """A vocabulary piece near a prompt row."""

    piece: str
    id: int
    cosine: float


class RowMovement(Wire):
    """A prompt row against the values that its training began with."""

    cosine: float
    distance: float


class RowNeighbors(Wire):
    """The nearest pieces of one prompt row, nearest first.

    Attributes:
        moved: since the training's first step; None if the version's lineage does not tell with which values
            it began, or it began with a prompt that the caller may not see.
    """

    row: int
    norm: float
    neighbors: list[Neighbor]
    moved: RowMovement | None = None


class Neighbors(Wire):
    """The nearest vocabulary pieces of each row of a prompt (section 7 of the prompt-tuning paper)."""

    task: str
    version: int
    rows: list[RowNeighbors]


class Member(Wire):
    """A member of a stored ensemble, pinned to a version."""

    task: str
    version: int
    weight: float = 1.0


class Ensemble(Wire):
    """One immutable version of a stored ensemble.

    Attributes:
        back: to which version a rollback of each alias would go.
    """

    ensemble: str
    version: int
    vote: str = "majority"
    members: list[Member]
    digest: str
    created_at: datetime
    aliases: dict[str, int] = Field(default_factory=dict)
    back: dict[str, int] = Field(default_factory=dict)


class PackQuestion(Wire):
    """The version that answers a question of a pack. `values` has its label of each value that is none
    itself."""

    task: str
    version: int
    values: dict[str, str] = Field(default_factory=dict)


class Pack(Wire):
    """One immutable version of a decision pack.

    Attributes:
        unknown_questions: what happens to others: `refuse` or `base`.
        back: to which version a rollback of each alias would go.
    """

    pack: str
    version: int
    questions: dict[str, PackQuestion]
    unknown_questions: str = "refuse"
    digest: str
    created_at: datetime
    aliases: dict[str, int] = Field(default_factory=dict)
    back: dict[str, int] = Field(default_factory=dict)


class PackVersionPage(Wire):
    """Part of a pack's versions, newest first."""

    versions: list[Pack]
    next_cursor: str | None = None


class PackPage(Wire):
    """Part of the list of packs."""

    packs: list[Pack]
    next_cursor: str | None = None


class EnsembleVersionPage(Wire):
    """Part of an ensemble's versions, newest first."""

    versions: list[Ensemble]
    next_cursor: str | None = None


class EnsemblePage(Wire):
    """Part of the list of ensembles."""

    ensembles: list[Ensemble]
    next_cursor: str | None = None
