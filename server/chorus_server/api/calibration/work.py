"""Does a calibration: ranks the labels of a file's rows as a caller's requests would, and fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.inference.calls import Call, prepared_items
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import score_requests, scores_of
from chorus_server.api.inference.submit import outcomes
from chorus_server.api.jobs.attempt import EngineAttempt
from chorus_server.api.schemas.documents.calibration import CalibrationDocument
from chorus_server.calibration.records import FITTED_ROWS, WITH_PRIOR, calibration_of, spread
from chorus_server.errors import ChorusError, InvalidInputError
from chorus_server.tuning.data.columns import answers_of, template_values
from chorus_server.tuning.data.readers import ReadOptions, read_rows
from prompts_store.records import LEAST_CALIBRATION_ROWS

_BLOCK_ROWS = 64
_MOST_READ = 1_000_000
_ROWS_A_LOOK = 1_000


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One row of the file.

    Attributes:
        row: its number in the file, from 1, without a header.
        values: the fields of the version's template.
        place: of the right label.
    """

    row: int
    values: Mapping[str, bytes]
    place: int


def calibrate_version(attempt: EngineAttempt) -> Mapping[str, Any]:
    """The result of a job of this kind: the record that stands beside the version now.

    It is a function of the document and the answers, and a row's answers of the row: an attempt that goes on
    where another was killed ends with the same record, and the store adds none twice.

    Raises:
        InvalidInputError: a bad row, or too few.
        StoreError: the version or the file is no longer there.
    """
    spec, store, tenant = attempt.job.spec, attempt.store, attempt.job.tenant
    document = CalibrationDocument.read(spec["document"])
    version = store.get_version(tenant, spec["task"], spec["version"])
    rows = calibration_rows(attempt, document, version.manifest.template)
    reference = f"{tenant}/{version.task}@{version.number}"

    def answer(places: range) -> bytes:
        some = rows[places.start : places.stop]
        scores = attempt.ask(lambda call: _scored(call, reference, document.labels, some))
        return b"".join(json.dumps(row).encode() + b"\n" for row in scores)

    blocks = b"".join(attempt.work_off(len(rows), _BLOCK_ROWS, answer))
    attempt.progress["phase"] = "fitting"
    attempt.save_progress()
    fitted = calibration_of(
        [json.loads(line) for line in blocks.splitlines()],
        [row.place for row in rows],
        labels=document.labels,
        matrix_dtype=attempt.services.base().matrix_dtype,
        source={"job": attempt.job.id, "file": document.file},
        with_prior=WITH_PRIOR if document.prior is None else document.prior,
    )
    if fitted is None:
        raise InvalidInputError(
            f"The model's log probabilities are finite numbers on fewer than {LEAST_CALIBRATION_ROWS} rows: "
            "the prompt's values may be damaged.",
            field="file",
        )
    made = store.calibrate(
        tenant,
        version.task,
        version.number,
        fitted,
        created_by=attempt.job.created_by,
        lease=attempt.held.lease,
    )
    return {"version": reference, "calibration": made.number}


def calibration_rows(
    attempt: EngineAttempt, document: CalibrationDocument, template: str
) -> Sequence[CalibrationRow]:
    """The rows of the file; of more than a fit takes, so many, evenly spaced.

    Raises:
        InvalidInputError: a bad row, by its number, or too few; field `file`.
        StoreError: the file is not there.
    """
    store, tenant, prompt = attempt.store, attempt.job.tenant, document.prompt(template)
    options = ReadOptions(
        format=document.format,
        column_names=document.column_names or None,
        max_rows=_MOST_READ,
        max_bytes=attempt.services.settings.tuning_max_file_bytes,
        name=store.get_file(tenant, document.file).name,
    )
    places = {label.strip(): place for place, label in enumerate(document.labels)}
    odd: list[str] = []
    rows: list[CalibrationRow] = []
    with store.local_file(tenant, document.file) as path:
        for number, record in read_rows(path, options, field="file", warn=odd.append):
            if len(rows) % _ROWS_A_LOOK == 0:
                attempt.held.check()
            values = template_values(prompt, number, record, field="file")
            said = answers_of(prompt, number, record, field="file")[0]
            place = places.get(said.strip())
            if place is None:
                known = ", ".join(document.labels[:5])
                raise InvalidInputError(
                    f"row {number}: the answer {ascii(said)[:60]} is none of the labels ({known}, ...); "
                    "write labels, or say in target_texts how to write them",
                    field="file",
                    code="unknown_label",
                )
            rows.append(CalibrationRow(number, {name: text.encode() for name, text in values.items()}, place))
    if len(rows) < LEAST_CALIBRATION_ROWS:
        raise InvalidInputError(
            f"the file has {len(rows)} rows; a calibration is fitted to {LEAST_CALIBRATION_ROWS} or more",
            field="file",
            code="too_few_rows",
        )
    if not attempt.progress.get("rows"):
        attempt.warn(odd)
    return spread(rows, FITTED_ROWS)


async def _scored(
    call: Call, reference: str, labels: Sequence[str], rows: Sequence[CalibrationRow]
) -> list[list[float]]:
    """Log probability of each label after each row. A text that is too long is cut, as in tuning."""
    items = [Item(reference, row.values, f"row {row.row}", truncate=True) for row in rows]
    async with prepared_items(call, items) as prepared:
        requests = await score_requests(call, prepared, labels, sent=True)
        found = [scores_of(outcome) for outcome in await outcomes(call.submit, requests)]
    for row, scores in zip(rows, found, strict=True):
        if isinstance(scores, ChorusError):
            raise type(scores)(f"row {row.row}: {scores.message}", field="file", code=scores.code)
    return [list(scores) for scores in found if not isinstance(scores, ChorusError)]
