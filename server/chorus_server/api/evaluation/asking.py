"""Asks one subject about a block of rows, as an inference request would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from chorus_server.api.evaluation.measures import DIGITS
from chorus_server.api.evaluation.questions import value_said, version_of
from chorus_server.api.evaluation.rows import EvaluationRow, with_text
from chorus_server.api.inference.ballots import label_poll, text_poll, voted
from chorus_server.api.inference.calibrated import calibration_for, ranked, uncalibrated
from chorus_server.api.inference.calls import Call, prepare_all
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import score_requests, scores_of
from chorus_server.api.inference.submit import outcomes
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument, EvaluationSubject
from chorus_server.errors import ChorusError, InvalidInputError
from prompts_store.records import EnsembleVersion, PackEntry, PackVersion, PromptVersion

ROWS_AT_ONCE = 64
"""Rows of a block; an ensemble's members share as many requests."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a subject said to one row.

    Attributes:
        text: the answer.
        confidence: from 0 to 1: the probability of the label among the labels, or of the written text; for
            an ensemble, the winner's share of the votes, or, of calibrated answers, the members' mean
            probability of it.
        log_probabilities: of the labels in order, of one prompt that ranks them, as the model gives them.
    """

    text: str
    confidence: float
    truncated: bool = False
    log_probabilities: tuple[float, ...] | None = None

    def document(self) -> dict[str, Any]:
        """As a line of the predictions has it. Rounded, so that the last bits, which depend on the shape of
        a batch, do not show."""
        found: dict[str, Any] = {"said": self.text, "confidence": round(self.confidence, DIGITS)}
        if self.log_probabilities is not None:
            found["log_probabilities"] = [round(value, DIGITS) for value in self.log_probabilities]
        if self.truncated:
            found["truncated"] = True
        return found


@dataclass(frozen=True, slots=True)
class Asking:
    """One subject, ready to be asked.

    Attributes:
        place: of the subject in the document.
        template: of its inputs; a prompt's own.
        before: what stands before each input of the base model.
        labels: of its versions, in the order of the document's, which for a pack are the question's values.
        ensemble: the pinned version, for an ensemble.
        pack, entry: the pinned version, and what it says of the question, for a pack.
        always: what it says to every row, without being asked.
    """

    document: EvaluationDocument
    subject: EvaluationSubject
    place: int
    template: str
    labels: tuple[str, ...]
    before: str = ""
    ensemble: EnsembleVersion | None = None
    pack: PackVersion | None = None
    entry: PackEntry | None = None
    always: Said | None = None

    async def ask(self, call: Call, rows: Sequence[EvaluationRow]) -> list[Said]:
        """What the subject says to each row.

        Raises:
            InvalidInputError: a row that cannot be asked, by its number.
        """
        if self.always is not None:
            return [self.always] * len(rows)
        members = len(self.ensemble.members) if self.ensemble is not None else 1
        at_once = max(1, ROWS_AT_ONCE // members)
        said: list[Said] = []
        try:
            for start in range(0, len(rows), at_once):
                said += await self._ask(call, rows[start : start + at_once])
        except ChorusError as error:
            if error.field is None or not error.field.startswith("row "):
                raise
            row = " ".join(error.field.split(".")[0].split()[:2])
            raise InvalidInputError(f"{row}: {error.message}", field="file", code=error.code) from error
        return said

    async def _ask(self, call: Call, rows: Sequence[EvaluationRow]) -> list[Said]:
        async with AsyncExitStack() as stack:
            versions = await self._versions(call, stack)
            if self.document.answer_by == "calibrated":
                path = f"subjects.{self.place}.{self.subject.kind}"
                check_calibrated(versions, self.labels, call.serving.base.matrix_dtype, path)
            pairs = [(self._item(row), version) for row in rows for version in versions]
            items = await prepare_all(call, pairs)
            if self.ensemble is not None:
                return await self._vote(call, items, rows)
            if self.document.answer_by == "greedy":
                return await self._write(call, items, rows)
            return await self._rank(call, items, rows)

    async def _versions(self, call: Call, stack: AsyncExitStack) -> list[PromptVersion | None]:
        if self.subject.kind == "base":
            return [None]
        library, fingerprint = call.services.library, call.serving.base.fingerprint
        field = f"subjects.{self.place}.{self.subject.kind}"
        # The caller named the ensemble or the pack, and it names its versions: its owner may ask them.
        if self.ensemble is not None:
            names = [f"{each.tenant}/{each.task}@{each.version}" for each in self.ensemble.members]
            tenant = self.ensemble.tenant
        elif self.pack is not None and self.entry is not None:
            names, tenant = [version_of(self.entry)], self.pack.tenant
        else:
            assert self.subject.task is not None
            names, tenant = [self.subject.task], call.principal.tenant
        held = library.held([(name, field) for name in names], tenant, fingerprint)
        versions = await stack.enter_async_context(held)
        return [versions[name] for name in names]

    def _item(self, row: EvaluationRow) -> Item:
        document, field = self.document, f"row {row.row}"
        most = {} if document.max_new_tokens is None else {"max_new_tokens": document.max_new_tokens}
        if self.subject.kind == "base":
            value: Any = with_text(row, self.place, self.template, self.before)
        else:
            value = {name: text.encode() for name, text in row.values[self.place].items()}
        paths = dict.fromkeys(most, "max_new_tokens")
        return Item(self.subject.task, value, field, truncate=document.truncate, settings=most, paths=paths)

    async def _rank(self, call: Call, items: Sequence[Item], rows: Sequence[EvaluationRow]) -> list[Said]:
        labels, matrix_dtype = self.labels, call.serving.base.matrix_dtype
        calibrated = self.document.answer_by == "calibrated"
        requests = await score_requests(call, items, labels, sent=True)
        said = []
        for item, row, outcome in zip(items, rows, await outcomes(call.submit, requests), strict=True):
            scores = _sound(scores_of(outcome), row)
            found = ranked(item, labels, scores, matrix_dtype) if calibrated else uncalibrated(scores)
            answer, confidence = self.document.labels[found.place], found.probabilities[found.place]
            said.append(Said(answer, confidence, item.truncated, found.log_probabilities))
        return said

    async def _write(self, call: Call, items: Sequence[Item], rows: Sequence[EvaluationRow]) -> list[Said]:
        poll = await text_poll(call, items)
        said = []
        for item, row, outcome in zip(items, rows, await outcomes(call.submit, poll.requests), strict=True):
            text, score = _sound(poll.read(outcome, item), row)
            answer = text if self.entry is None else value_said(self.entry, text)
            said.append(Said(answer, min(1.0, math.exp(score)), item.truncated))
        return said

    async def _vote(self, call: Call, items: Sequence[Item], rows: Sequence[EvaluationRow]) -> list[Said]:
        assert self.ensemble is not None
        weights = [member.weight for member in self.ensemble.members]
        calibrated = self.document.answer_by == "calibrated"
        if self.document.answer_by == "greedy":
            poll = await text_poll(call, items)
        else:
            poll = await label_poll(call, items, list(self.labels), sent=True, calibrated=calibrated)
        found = await outcomes(call.submit, poll.requests)
        said, size = [], len(weights)
        for place, row in enumerate(rows):
            of_row = slice(place * size, (place + 1) * size)
            for outcome in found[of_row]:
                _sound(outcome, row)
            vote = _sound(voted({}, items[of_row], weights, poll, found[of_row], call.request_id), row)
            confidence = vote["probabilities"][vote["answer"]] if calibrated else vote["agreement"]
            said.append(Said(vote["answer"], confidence, vote["truncated"]))
        return said


def check_calibrated(
    versions: Sequence[PromptVersion | None], labels: Sequence[str], matrix_dtype: str, path: str
) -> None:
    """Refuse a subject of which a version has no calibration for these labels.

    Args:
        path: of the subject.
    """
    for version in versions:
        if calibration_for(version, labels, matrix_dtype) is None:
            who = "the base model" if version is None else f"{version.tenant}/{version.task}@{version.number}"
            remedy = "" if version is None else "calibrate it with them, or "
            raise InvalidInputError(
                f"answer_by is calibrated, and {who} has no calibration for these labels with {matrix_dtype} "
                f"matrices: {remedy}send answer_by ranked.",
                field=path,
            )


def _sound(found: Any, row: EvaluationRow) -> Any:
    """What was found, unless it is an error: then the job ends, and says at which row."""
    if isinstance(found, ChorusError):
        raise type(found)(f"row {row.row}: {found.message}", field="file", code=found.code)
    return found
