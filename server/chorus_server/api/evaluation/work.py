"""Does an evaluation: asks every subject about every row, then measures and compares what they said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chorus_server.api.evaluation.asking import ROWS_AT_ONCE, Asking, Said
from chorus_server.api.evaluation.comparing import compared
from chorus_server.api.evaluation.measures import calibrate_on_rows, measured
from chorus_server.api.evaluation.paired import PairedRows
from chorus_server.api.evaluation.questions import entry_of, labels_of
from chorus_server.api.evaluation.rows import EvaluationRow, commonest_answer, evaluation_rows, few_shot_text
from chorus_server.api.inference.calls import Call
from chorus_server.api.jobs.attempt import EngineAttempt
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument, EvaluationSubject
from chorus_server.quality.column_metrics import columns_of


def evaluate(attempt: EngineAttempt) -> Mapping[str, Any]:
    """The result of an evaluation; its predictions become a data file of the tenant.

    The result is a function of the document and the answers, and a row's answers of the row: an attempt that
    goes on where another was killed ends with the same file.
    """
    document = stored_document(attempt.job.spec)
    subjects = [_asking(attempt, document, place) for place in range(len(document.subjects))]
    asked = next(subject.template for subject in subjects if subject.always is None)
    subjects = [each if each.always is None else replace(each, template=asked) for each in subjects]
    rows, warnings = evaluation_rows(attempt, document, [subject.template for subject in subjects])
    if not attempt.progress.get("rows"):
        attempt.warn(warnings)

    def answer(places: range) -> bytes:
        some = rows[places.start : places.stop]
        said = [attempt.ask(lambda call, each=subject: _ask(each, call, some)) for subject in subjects]  # type: ignore[misc]
        return b"".join(map(_line, some, zip(*said, strict=True)))

    blocks = list(attempt.work_off(len(rows), ROWS_AT_ONCE, answer))
    attempt.progress["phase"] = "measuring"
    attempt.save_progress()
    lines = [json.loads(line) for line in b"".join(blocks).splitlines()]
    corrected = [place for place, each in enumerate(document.subjects) if each.base and each.base.calibrated]
    for place in corrected:
        calibrate_on_rows([line["subjects"][place] for line in lines], document.labels)
    if corrected:
        blocks = [_written(line) for line in lines]
    result = _result(attempt, document, rows, lines)
    result["predictions"] = attempt.save_file(f"{attempt.job.id}-predictions.jsonl", iter(blocks))
    attempt.held.tell([("evaluated", _summary(result))])
    return result


def stored_document(spec: Mapping[str, Any]) -> EvaluationDocument:
    """The document of a job, without what was stored beside it."""
    return EvaluationDocument.read({name: value for name, value in spec.items() if name != "key"})


def _asking(attempt: EngineAttempt, document: EvaluationDocument, place: int) -> Asking:
    """A subject, with what it needs beside the rows.

    Raises:
        ChorusError: a version is no longer there.
    """
    subject = document.subjects[place]
    if subject.majority:
        always = Said(*commonest_answer(attempt, document))
        return Asking(document, subject, place, "", document.labels, always=always)
    if subject.base is not None:
        before = few_shot_text(attempt, document, subject.base)
        return Asking(document, subject, place, subject.base.template, document.labels, before)
    tenant, field = attempt.job.tenant, f"subjects.{place}.{subject.kind}"
    if subject.task is not None:
        version = attempt.store.resolve(subject.task, tenant=tenant, field=field)
        return Asking(document, subject, place, version.manifest.template, document.labels)
    if subject.pack is not None and subject.question is not None:
        pack = attempt.store.resolve_pack(subject.pack, tenant=tenant, field=field)
        entry = entry_of(pack, subject.question, f"subjects.{place}.question")
        manifest = attempt.store.get_version(entry.tenant, entry.task, entry.version).manifest
        labels = labels_of(entry, manifest.labels, document.labels)
        return Asking(document, subject, place, manifest.template, labels, pack=pack, entry=entry)
    assert subject.ensemble is not None
    made = attempt.store.resolve_ensemble(subject.ensemble, tenant=tenant, field=field)
    first = made.members[0]
    member = attempt.store.get_version(first.tenant, first.task, first.version)
    return Asking(document, subject, place, member.manifest.template, document.labels, ensemble=made)


async def _ask(subject: Asking, call: Call, rows: Sequence[EvaluationRow]) -> list[Said]:
    return await subject.ask(call, rows)


def _line(row: EvaluationRow, said: Sequence[Said]) -> bytes:
    found = {"row": row.row, "answers": row.answers, "subjects": [each.document() for each in said]}
    return _written(found)


def _written(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _result(
    attempt: EngineAttempt,
    document: EvaluationDocument,
    rows: Sequence[EvaluationRow],
    lines: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    answers, columns = [row.answers for row in rows], columns_of(rows)
    predictions = [
        [line["subjects"][place]["said"] for line in lines] for place in range(len(document.subjects))
    ]
    subjects, comparisons = [], []
    for place, subject in enumerate(document.subjects):
        attempt.held.check()
        confidences = [line["subjects"][place]["confidence"] for line in lines]
        said = predictions[place]
        found = measured(document.metrics, said, confidences, answers, document.labels, columns)
        cut = sum("truncated" in line["subjects"][place] for line in lines)
        subjects.append({**_named(subject), "answer_by": document.answer_by, "truncated": cut, **found})
        if place:
            paired = PairedRows(document.metrics, (predictions[0], said), answers, document.labels, columns)
            comparison = compared(paired, document.seed, interrupt=attempt.held.check)
            comparisons.append({"first": 0, "second": place, **comparison})
    return {"rows": len(rows), "subjects": subjects, "comparisons": comparisons}


def _named(subject: EvaluationSubject) -> dict[str, Any]:
    return {"kind": subject.kind, "name": subject.name}


def _summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without its long parts, as an event of the job."""
    subjects = [
        {name: each[name] for name in ("kind", "name", "metrics", "legal")} for each in result["subjects"]
    ]
    return {"rows": result["rows"], "subjects": subjects, "predictions": result["predictions"]}
