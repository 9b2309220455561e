"""What the `model` of a decision means: a pack, a task, or the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chorus_server.api.inference.calls import Call
from chorus_server.api.openai.model_names import reference_of
from chorus_server.api.schemas.questions import Question
from prompts_store.records import PackEntry, PackVersion


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


async def model_of(call: Call, name: str) -> DecisionModel:
    """What a name means. A task goes before a pack of its name.

    Raises:
        StoreAnswerError: of a pack that is there: `unknown_version`, `unknown_alias`.
    """
    principal = call.principal
    meaning = reference_of(call.services, name)
    if meaning is None:
        return DecisionModel(principal.tenant)
    async with call.in_time():
        pack = await call.services.library.pack(meaning, principal.tenant, patterns=principal.tasks)
    if pack is None:
        return DecisionModel(principal.tenant, task=meaning, patterns=principal.tasks)
    # The caller named the pack, and it names its versions: its owner may ask them.
    return DecisionModel(pack.tenant, pack, {entry.question: entry for entry in pack.entries})
