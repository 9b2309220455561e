"""From a document of an evaluation to a job: validated whole, its references pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chorus_server.api.evaluation.asking import check_calibrated
from chorus_server.api.evaluation.questions import entry_of, labels_of, values_of, version_of
from chorus_server.api.inference.ranking import shared_labels
from chorus_server.api.jobs.queueing import queue_asking_job, require_infer
from chorus_server.api.library.resolve import check_base
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument, EvaluationSubject
from chorus_server.api.services import Services
from chorus_server.errors import InvalidInputError
from chorus_server.tenancy.principal import Principal
from chorus_server.tuning.data.normalizers import check_normalizer, unsuited
from prompts_store.jobs.records import Job
from prompts_store.records import PackEntry, PromptVersion
from prompts_store.store import PromptStore
from prompts_store.tasks.template import parse_template


@dataclass(frozen=True, slots=True)
class _Pinned:
    """A subject with its reference pinned, because an alias may move before the job runs.

    Attributes:
        versions: none for the base model and for the commonest answer.
        labels: that all versions have, or the values of a pack's question; empty if they differ.
        entry: what a pack says of its question.
    """

    subject: EvaluationSubject
    versions: Sequence[PromptVersion]
    labels: tuple[str, ...]
    entry: PackEntry | None = None


async def queue_evaluation(
    services: Services, store: PromptStore, principal: Principal, sent: EvaluationDocument
) -> Job:
    """Check a document against the server, and put the job into the queue of the store.

    Raises:
        InvalidInputError: the document is not valid; the error names the field.
        ForbiddenError: the key may not ask prompts.
        StoreAnswerError: a reference does not exist.
        StoreError: a file is not there for the key, or there are too many jobs.
        NotReadyError: the base model is not loaded yet.
    """
    require_infer(principal, "An evaluation asks prompts")
    sent.check()
    base = services.base()
    sent = sent.for_base(base.fingerprint)
    pinned: list[_Pinned] = []
    for place, subject in enumerate(sent.subjects):
        found = await _pinned(services, principal, subject, f"subjects.{place}")
        pinned.append(found)
        _check_columns(found.versions, place)
    document = sent.completed(_common(sent, [each.labels for each in pinned])).model_copy(
        update={"subjects": tuple(each.subject for each in pinned)}
    )
    for place, each in enumerate(pinned):
        labels = document.labels
        if each.entry is not None:
            labels = labels_of(each.entry, each.versions[0].manifest.labels, labels)
        if document.answer_by == "calibrated" and each.subject.kind != "majority":
            path = f"subjects.{place}.{each.subject.kind}"
            check_calibrated(each.versions or [None], labels, base.matrix_dtype, path)
    files = {"file": document.file}
    if document.examples is not None:
        files["examples"] = document.examples
    return await queue_asking_job(services, store, principal, "evaluation", document.to_json(), files)


async def _pinned(services: Services, principal: Principal, subject: EvaluationSubject, path: str) -> _Pinned:
    library, base = services.library, services.base()
    if subject.task is not None:
        field = f"{path}.task"
        version = await library.resolve(subject.task, principal.tenant, field, patterns=principal.tasks)
        check_base(version, base.fingerprint, field)
        name = f"{version.tenant}/{version.task}@{version.number}"
        return _Pinned(subject.model_copy(update={"task": name}), [version], shared_labels([version]))
    if subject.pack is not None and subject.question is not None:
        field = f"{path}.pack"
        pack = await library.resolve_pack(subject.pack, principal.tenant, field, patterns=principal.tasks)
        entry = entry_of(pack, subject.question, f"{path}.question")
        # The caller named the pack, and it names its versions: its owner may ask them.
        version = await library.resolve(version_of(entry), pack.tenant, field)
        check_base(version, base.fingerprint, field)
        name = f"{pack.tenant}/{pack.name}@{pack.number}"
        values = values_of(entry, version.manifest.labels)
        return _Pinned(subject.model_copy(update={"pack": name}), [version], values, entry)
    if subject.ensemble is not None:
        field = f"{path}.ensemble"
        made = await library.ensemble(subject.ensemble, principal.tenant, field, patterns=principal.tasks)
        # The caller named the ensemble, and it names its members: its owner may ask them.
        members = [
            await library.resolve(f"{each.tenant}/{each.task}@{each.version}", made.tenant, field)
            for each in made.members
        ]
        for version in members:
            check_base(version, base.fingerprint, field)
        name = f"{made.tenant}/{made.name}@{made.number}"
        return _Pinned(subject.model_copy(update={"ensemble": name}), members, shared_labels(members))
    if subject.base is not None and subject.base.normalizer is not None:
        field = f"{path}.base.normalizer"
        check_normalizer(subject.base.normalizer, field)
        if (problem := unsuited(subject.base.template, subject.base.normalizer)) is not None:
            raise InvalidInputError(problem, field=field)
    return _Pinned(subject, [], ())


def _common(sent: EvaluationDocument, labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The labels that all subjects have. Baselines take those of the others."""
    if sent.labels:
        return sent.labels
    prompted = [
        each
        for each, subject in zip(labels, sent.subjects, strict=True)
        if subject.kind not in ("base", "majority")
    ]
    if not prompted:
        return ()
    if any(set(each) != set(prompted[0]) for each in prompted):
        raise InvalidInputError(
            "The subjects have different labels: send labels, the ones to evaluate all of them with.",
            field="labels",
        )
    return prompted[0]


def _check_columns(versions: Sequence[PromptVersion], place: int) -> None:
    """Refuse members of an ensemble that would need different inputs."""
    templates = {version.manifest.template for version in versions}
    fields = {parse_template(template).fields for template in templates}
    if len({frozenset(each) for each in fields}) > 1:
        raise InvalidInputError(
            "The members of the ensemble have templates with different fields: evaluate them one by one.",
            field=f"subjects.{place}.ensemble",
        )
