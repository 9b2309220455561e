"""What the `model` of a decision means: a pack, a task, or the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chorus_server.api.inference.calls import Call
from chorus_server.api.schemas.questions import Question
from chorus_server.settings import Settings
from prompts_store.records import PackEntry, PackVersion

BASE = "base"
"""Names the base model, beside its own name."""


@dataclass(frozen=True, slots=True)
class DecisionModel:
    """Who answers.

    Attributes:
        pack: with its entries by question; None for a task and the base.
        task: a reference; None for a pack and the base.
        tenant: whose rights count, and whom a bare name means.
        patterns: of the names that the caller may use; None for any.
    """

    tenant: str
    pack: PackVersion | None = None
    entries: Mapping[str, PackEntry] = field(default_factory=dict)
    task: str | None = None
    patterns: Sequence[str] | None = None

    def asked(self, question: Question) -> str | None:
        """The reference of what answers the question; None for the base model.

        Raises:
            QuestionError: the pack does not know it, and asks nobody else.
        """
        if self.pack is None:
            return self.task
        entry = self.entry(question)
        if entry is not None:
            return f"{entry.tenant}/{entry.task}@{entry.version}"
        if self.pack.unknown_questions == "base":
            return None
        raise question.error(
            f"the pack {self.pack.tenant}/{self.pack.name}@{self.pack.number} has no question of this id, "
            "and refuses those that it does not know. Ask one that it has, or make a version with "
            "unknown_questions: base."
        )

    def entry(self, question: Question) -> PackEntry | None:
        """What the pack says of the question."""
        return None if question.id is None else self.entries.get(question.id)


def mapped_names(settings: Settings) -> dict[str, str]:
    """What the operator has mapped: a reference or `base` by name."""
    pairs = (pair.partition("=") for pair in settings.decision_models)
    return {name.strip(): meaning.strip() for name, _, meaning in pairs}


async def model_of(call: Call, name: str) -> DecisionModel:
    """What a name means. A task goes before a pack of its name.

    Raises:
        StoreAnswerError: of a pack that is there: `unknown_version`, `unknown_alias`.
    """
    principal = call.principal
    meaning = mapped_names(call.services.settings).get(name, name)
    if meaning in (BASE, call.serving.base.name):
        return DecisionModel(principal.tenant)
    async with call.in_time():
        pack = await call.services.library.pack(meaning, principal.tenant, patterns=principal.tasks)
    if pack is None:
        return DecisionModel(principal.tenant, task=meaning, patterns=principal.tasks)
    # The caller named the pack, and it names its versions: its owner may ask them.
    return DecisionModel(pack.tenant, pack, {entry.question: entry for entry in pack.entries})
