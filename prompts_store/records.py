"""The records that the store returns: immutable plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

BASE_MODEL_NAME = "base_model_name"
"""Key in a lineage: the base model's name where the prompt was made. A name proves nothing."""

PromptKind = Literal["soft_prompt"]
Vote = Literal["majority"]
UnknownQuestions = Literal["refuse", "base"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, as the audit log names them.

    Attributes:
        name: of a key or a person; `chorus` for what the server does by itself.
        address: where the request came from; empty where there was none.
        request_id: the request's; empty where there was none.
    """

    name: str
    address: str = ""
    request_id: str = ""


CHORUS = Actor("chorus")
"""Who acts unless somebody else is named."""


@dataclass(frozen=True, slots=True)
class Creation:
    """A request to create something, which may come again: see `tenants.creations`.

    Attributes:
        key: by which its sender knows it again, of the sender's own choice; None where there is none.
        sender: who sends it; without a key, the same from somebody else is another request.
        said: what it asks for, in full or as digests.
    """

    key: str | None
    sender: str
    said: tuple[str, ...]

    def including(self, *said: str) -> Creation:
        """The same request, of which more is known."""
        return replace(self, said=(*self.said, *said))


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """A process that holds leases which have not run out.

    Attributes:
        name: the process, as it named itself when it took them.
        leases: how many.
        expires_at: when the last of them runs out.
    """

    name: str
    leases: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: `tenant/task`, `tenant/task@3`, `tenant/task@alias`; without a suffix, `@live`.

    Attributes:
        version: a number; None if `alias` names the version.
        alias: starts with a letter; None if `version` is given.
    """

    tenant: str
    task: str
    version: int | None = None
    alias: str | None = "live"


@dataclass(frozen=True, slots=True)
class PromptManifest:
    """Everything that the manifest digest covers: what a version *is*.

    Attributes:
        digest: SHA-256 (hex) of shape and f32 little-endian values.
        length: rows P.
        width: columns D, the model's d_model.
        base_fingerprint: fingerprint of the base model that the prompt was tuned on; None if the uploader
            gave none.
        template: input template, `{name}` fields only.
        labels: answers of a classification task, in order; empty for free text.
        settings: default generation settings, by their REST names.
        kind: `soft_prompt`.
    """

    digest: str
    length: int
    width: int
    base_fingerprint: str | None = None
    template: str = "{text}"
    labels: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: PromptKind = "soft_prompt"


LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
LEAST_CALIBRATION_ROWS = 50
"""Rows whose answers are known that a calibration is fitted to, at least."""


@dataclass(frozen=True, slots=True)
class FittedCalibration:
    """What makes probabilities of a version's labels mean what they say: `softmax((log p - prior) /
    temperature)`.

    Attributes:
        labels: it was fitted for these; others are answered without it.
        matrix_dtype: type of the base's matrices that it was fitted with; another one's log probabilities
            differ.
        prior: for each label, in nats; None if there is none.
        rows: how many rows it was fitted to.
        measures: `raw` and `calibrated`, with the names of docs/rest.md.
        source: the job and the data that it was fitted from.
    """

    labels: tuple[str, ...]
    matrix_dtype: str
    temperature: float
    prior: tuple[float, ...] | None
    rows: int
    measures: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """One immutable record of a version.

    Attributes:
        number: 1, 2, ... for each version. The newest serves.
    """

    number: int
    fitted: FittedCalibration
    created_at: datetime
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """One immutable version of a task.

    Attributes:
        number: 1, 2, ...; never reused.
        manifest_digest: SHA-256 (hex) of the canonical JSON of the manifest.
        lineage: where it came from (job, data digests, recipe, parent, source file, client), in any JSON
            form.
        metrics: values by name, as measured when it was made.
        deleted_at: set by a tombstone.
        calibration: the newest; not part of what the version is.
    """

    tenant: str
    task: str
    number: int
    manifest: PromptManifest
    manifest_digest: str
    created_at: datetime
    created_by: str = ""
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    deleted_at: datetime | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a publish. `created` is False if the same manifest was there already."""

    version: PromptVersion
    created: bool


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One entry of an alias's history, which is ordered oldest first. `version` is None for a removal."""

    alias: str
    version: int | None
    previous: int | None
    moved_at: datetime
    moved_by: str = ""


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """What a list says of the version that `@live` names."""

    number: int
    labels: tuple[str, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task with its aliases and the number of its live versions.

    Attributes:
        live: the version that `@live` names; None where there is no such alias.
        last_move: of any of its aliases.
    """

    tenant: str
    name: str
    created_at: datetime
    versions: int
    latest: int
    aliases: Mapping[str, int]
    description: str = ""
    live: LiveVersion | None = None
    last_move: AliasMove | None = None


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """A member pinned to a version."""

    tenant: str
    task: str
    version: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class EnsembleVersion:
    """One immutable version of an ensemble, addressed like a task's version."""

    tenant: str
    name: str
    number: int
    members: tuple[EnsembleMember, ...]
    vote: Vote
    digest: str
    created_at: datetime
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class PackEntry:
    """A question of a pack, and the version that answers it.

    Attributes:
        question: its id, as requests name it.
        labels: the version's label of each value of the question that is not a label itself.
    """

    question: str
    tenant: str
    task: str
    version: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackVersion:
    """One immutable version of a decision pack, addressed like a task's version.

    Attributes:
        unknown_questions: what happens to a question that it has no entry for.
    """

    tenant: str
    name: str
    number: int
    entries: tuple[PackEntry, ...]
    unknown_questions: UnknownQuestions
    digest: str
    created_at: datetime
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class ListRecord(Generic[T]):
    """An ensemble or a pack with its newest version, its aliases, and to which version a rollback of each of
    these would go."""

    tenant: str
    name: str
    created_at: datetime
    latest: T
    aliases: Mapping[str, int]
    back: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list. `next_cursor` is None on the last page."""

    items: tuple[T, ...]
    next_cursor: str | None
