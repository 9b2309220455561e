"""The store's calibrations: numbered records beside a version, which say what its log probabilities mean."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.base import StoreBase, check_owner
from prompts_store.database.tables import calibrations
from prompts_store.errors import InvalidError, NotFoundError
from prompts_store.jobs.records import Lease
from prompts_store.jobs.rows import held
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import (
    LEAST_CALIBRATION_ROWS,
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    Calibration,
    FittedCalibration,
    Page,
    Reference,
)
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.references import check_version
from prompts_store.tasks.rows import CALIBRATION_COLUMNS, calibration_record
from prompts_store.tasks.versions import resolve
from prompts_store.tenants import feed
from prompts_store.text import shown

MAX_MEASURES_BYTES = 16_384
MAX_SOURCE_BYTES = 4_096
_MATRIX_DTYPE = re.compile(r"[a-z0-9]{1,32}", re.ASCII)
_CURSOR = "calibrations"


class Calibrations(StoreBase):
    """Calibrations of versions."""

    def calibrate(
        self,
        tenant: str,
        task: str,
        number: int,
        fitted: FittedCalibration,
        *,
        created_by: str = "",
        lease: Lease | None = None,
    ) -> Calibration:
        """Add a calibration to a version; it serves from now on. If the newest one is the same, that is
        returned and nothing changes.

        Args:
            lease: of the job that fitted it. A job that lost its lease adds none.

        Raises:
            InvalidError: names the field at fault.
            NotFoundError: `unknown_task`, `unknown_version`.
            LeaseLostError: another process runs the job now.
        """
        check_owner(tenant, task, created_by)
        check_fitted(fitted)
        reference = Reference(tenant, task, version=check_version(number), alias=None)
        with self._database.write(tenant) as connection:
            if lease is not None:
                held(connection, lease)
            row = resolve(connection, reference, field="version")
            return add_calibration(connection, row, fitted, created_by, self._clock())

    def list_calibrations(
        self, tenant: str, task: str, number: int, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[Calibration]:
        """A page of a version's calibrations, newest first. NotFoundError: `unknown_task`,
        `unknown_version`; InvalidError."""
        check_owner(tenant, task)
        limit = check_limit(limit)
        before = decode_cursor(_CURSOR, cursor, check_version)
        reference = Reference(tenant, task, version=check_version(number), alias=None)
        with self._database.read(tenant) as connection:
            query = _of(resolve(connection, reference, field="version"))
            if before is not None:
                query = query.where(calibrations.c.number < before)
            query = query.order_by(calibrations.c.number.desc()).limit(limit + 1)
            rows = connection.execute(query).all()
        return make_page(
            rows, limit, calibration_record, lambda row: encode_cursor(_CURSOR, row.calibration_number)
        )

    def get_calibration(self, tenant: str, task: str, number: int, calibration: int) -> Calibration:
        """One calibration of a version. NotFoundError: `unknown_task`, `unknown_version`,
        `unknown_calibration`."""
        check_owner(tenant, task)
        wanted = check_version(calibration, field="calibration")
        reference = Reference(tenant, task, version=check_version(number), alias=None)
        with self._database.read(tenant) as connection:
            query = _of(resolve(connection, reference, field="version"))
            query = query.where(calibrations.c.number == wanted)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(
                f"The version {tenant}/{task}@{number} has no calibration {wanted}.",
                field="calibration",
                code="unknown_calibration",
            )
        return calibration_record(row)


def add_calibration(
    connection: Connection, version: Row[Any], fitted: FittedCalibration, created_by: str, now: datetime
) -> Calibration:
    """Give what was fitted the next number, unless the newest is the same. The caller holds the publish lock
    and has checked it.

    Args:
        version: a row of `select_versions`.
    """
    newest = None if version.calibration_number is None else calibration_record(version)
    if newest is not None and newest.fitted == fitted:
        return newest
    number = 1 if newest is None else newest.number + 1
    connection.execute(
        insert(calibrations).values(
            version_id=version.id,
            number=number,
            labels=list(fitted.labels),
            matrix_dtype=fitted.matrix_dtype,
            temperature=fitted.temperature,
            prior=None if fitted.prior is None else list(fitted.prior),
            rows=fitted.rows,
            measures=fitted.measures,
            source=fitted.source,
            created_at=now,
            created_by=created_by,
        )
    )
    subject = f"{version.name}@{version.number}"
    feed.record(connection, "version_calibrated", version.tenant, subject, now=now)
    facts = {"calibration": number, "temperature": fitted.temperature, "rows": fitted.rows}
    chain.append(connection, "version.calibrate", version.tenant, subject, now=now, after=facts)
    return Calibration(number, fitted, now, created_by)


def check_fitted(fitted: FittedCalibration) -> None:
    """Raise InvalidError, with the field at fault, unless a version can have this calibration."""
    labels = check_labels(fitted.labels)
    if len(labels) < 2:
        raise InvalidError(f"A calibration needs two labels or more, not {len(labels)}.", field="labels")
    if not isinstance(fitted.matrix_dtype, str) or not _MATRIX_DTYPE.fullmatch(fitted.matrix_dtype):
        raise InvalidError(f"{shown(fitted.matrix_dtype)} is not a type of matrices.", field="matrix_dtype")
    temperature = fitted.temperature
    if not checks.is_finite(temperature) or not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise InvalidError(
            f"The temperature is {shown(temperature)}; it must be from {LEAST_TEMPERATURE} to "
            f"{MOST_TEMPERATURE:g}.",
            field="temperature",
        )
    prior = fitted.prior
    if prior is not None and (len(prior) != len(labels) or not all(map(checks.is_finite, prior))):
        raise InvalidError("The prior must have a finite number for each label.", field="prior")
    if not isinstance(fitted.rows, int) or fitted.rows < LEAST_CALIBRATION_ROWS:
        raise InvalidError(
            f"A calibration is fitted to {LEAST_CALIBRATION_ROWS} rows or more, not {shown(fitted.rows)}.",
            field="rows",
        )
    checks.check_object(fitted.measures, field="measures", limit_bytes=MAX_MEASURES_BYTES)
    checks.check_object(fitted.source, field="source", limit_bytes=MAX_SOURCE_BYTES)


def _of(version: Row[Any]) -> Select[Any]:
    return select(*CALIBRATION_COLUMNS).where(calibrations.c.version_id == version.id)
