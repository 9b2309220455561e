"""The store's prompts: publish, resolve, read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from prompts_store import checks
from prompts_store.base import StoreBase
from prompts_store.blobs.format import decode, encode
from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tables import blobs as blob_table
from prompts_store.digests import prompt_digest
from prompts_store.errors import CorruptError, NotFoundError
from prompts_store.grants import rows as grants
from prompts_store.grants.records import Right
from prompts_store.jobs.records import Lease
from prompts_store.jobs.rows import held
from prompts_store.names import check_name
from prompts_store.records import (
    FittedCalibration,
    PromptManifest,
    PromptVersion,
    Published,
    Reference,
)
from prompts_store.tasks import versions
from prompts_store.tasks.calibrations import check_fitted
from prompts_store.tasks.manifests import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_LINEAGE_BYTES,
    MAX_SETTINGS_BYTES,
    check_manifest,
    check_metrics,
    check_values,
)
from prompts_store.tasks.publishing import Draft, add_version, calibrated, find_same
from prompts_store.tasks.references import parsed_reference
from prompts_store.tasks.rows import version_record
from prompts_store.tenants import creations
from prompts_store.text import shown

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Prompts(StoreBase):
    """Publish and read."""

    def publish(
        self,
        tenant: str,
        task: str,
        values: npt.NDArray[np.float32],
        manifest: PromptManifest,
        *,
        created_by: str = "",
        lineage: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str | None = None,
        calibration: FittedCalibration | None = None,
        lease: Lease | None = None,
    ) -> Published:
        """Make a version. The first version of a task gets `@live`; later ones do not move it.

        If the task has a live version with the same manifest, that version is returned and nothing changes
        but its calibration.
        When this returns, the version survives a power cut; if it raises, there is no version.

        Args:
            values: `[P, D]` finite float32.
            lineage: where it came from, in any JSON form.
            description: description of the task; None leaves it unchanged.
            calibration: what was fitted to it; None leaves that of a version which is there.
            lease: lease of the job that makes it. A job that lost its lease makes none.

        Raises:
            InvalidError: names the field at fault.
            LeaseLostError: another process runs the job now.
            LimitError: `limit_exceeded`: the tenant may keep no more.
            MadeBefore: see `creating`. Without a key, versions are told apart by their manifest alone.
            StoreError: the disk or the database failed.
        """
        digest = check_manifest(manifest)
        check_values(values, manifest)
        content = encode(values)
        draft = Draft(
            tenant=check_name(tenant, field="tenant"),
            task=check_name(task, field="task"),
            manifest=manifest,
            manifest_digest=digest,
            settings=checks.check_object(manifest.settings, field="settings", limit_bytes=MAX_SETTINGS_BYTES),
            lineage=checks.check_object(lineage or {}, field="lineage", limit_bytes=MAX_LINEAGE_BYTES),
            metrics=check_metrics(metrics or {}),
            description=None
            if description is None
            else checks.check_text(description, field="description", limit=MAX_DESCRIPTION_CHARACTERS),
            created_by=checks.check_text(created_by, field="created_by"),
            size_bytes=len(content),
            calibration=calibration,
        )
        if calibration is not None:
            check_fitted(calibration)
        return self._publish(draft, content, lease)

    def resolve(
        self, reference: str | Reference, *, tenant: str, field: str = "task", right: Right = "infer"
    ) -> PromptVersion:
        """The live version that a reference names.

        Args:
            tenant: who asks, and whose the task is if the reference does not name a tenant.
            field: the field that held the reference, for the error.
            right: what is needed of another tenant's task.

        Raises:
            InvalidError: `invalid_reference`.
            NotFoundError: `unknown_task`, also if it is another tenant's and not granted; `unknown_version`,
                `unknown_alias`.
        """
        parsed = parsed_reference(reference, tenant, field)
        with self._database.read(tenant) as connection:
            grants.require(
                connection, "task", parsed.tenant, parsed.task, tenant=tenant, right=right, field=field
            )
            with scoped(connection, parsed.tenant):
                return version_record(versions.resolve(connection, parsed, field=field))

    def values(self, digest: str) -> npt.NDArray[np.float32]:
        """The values of a digest, `[P, D]` float32, read-only. They are compared with the digest on every
        read.

        Raises:
            NotFoundError: there is no such prompt, or it was deleted and collected.
            CorruptError: the stored values are not the published ones.
        """
        content = self._blobs.get(digest) if _DIGEST.fullmatch(digest) else None
        if content is None:
            raise self._no_values(digest)
        values = decode(content, digest=digest)
        if prompt_digest(values) != digest:
            raise CorruptError(
                f"Blob {digest} does not contain the values of its digest; restore it from a backup."
            )
        return values

    @contextmanager
    def hold(self, version: PromptVersion, *, known: bool = False) -> Iterator[None]:
        """Keep a version's values readable until the block ends, even if it is deleted and collected
        meanwhile.

        Args:
            known: whether it was there a moment ago. If so, neither disk nor database is asked, and this
                never blocks.

        Raises:
            NotFoundError: `unknown_version`: it was collected before this began.
        """
        digest = version.manifest.digest
        with self._leases.hold(digest) as in_time:
            if not in_time or not (known or self._has(digest)):
                raise versions.unknown_version(version.tenant, version.task, version.number)
            yield

    def _publish(self, draft: Draft, content: bytes, lease: Lease | None) -> Published:
        digest = draft.manifest.digest
        # Done outside the lock, so that the disk's syncs delay nobody. Also done if the version exists,
        # because that repairs a damaged blob.
        self._blobs.put(digest, content, now=self._clock())
        with self._database.read(draft.tenant) as connection:
            same = find_same(connection, draft)
        unchanged = same is not None and draft.calibration in (None, _fitted(same))
        if same is not None and unchanged and self._database.creation is None:
            return Published(same, created=False)
        with self._database.write(draft.tenant) as connection:
            if lease is not None:
                held(connection, lease)
            now = self._clock()
            remember = creations.require_new(connection, draft.tenant, now)
            same = find_same(connection, draft)
            if same is not None:
                remember(f"{draft.task}@{same.number}")
                found = calibrated(connection, draft, same.number, now)
                return Published(found, created=False)
            # A collector may have removed it since; from here on it cannot.
            if not self._blobs.has(digest):
                self._blobs.put(digest, content, now=now)
            made = add_version(connection, draft, now)
            remember(f"{draft.task}@{made.number}")
        return Published(made, created=True)

    def _has(self, digest: str) -> bool:
        """Whether a digest has its blob, or ought to. A lost blob is reported when somebody reads it."""
        return self._blobs.has(digest) or isinstance(self._no_values(digest), CorruptError)

    def _no_values(self, digest: str) -> CorruptError | NotFoundError:
        """The error for values that are missing: they were lost, or nothing needs them any more."""
        with self._database.read(EVERY_TENANT) as connection:
            query = select(blob_table.c.reference_count).where(blob_table.c.digest == digest)
            needed = connection.execute(query).scalar()
        if needed:
            return CorruptError(
                f"Blob {digest} is missing, and live versions name it; restore it from a backup."
            )
        return NotFoundError(f"There are no values with the digest {shown(digest)}.", field="digest")


def _fitted(version: PromptVersion) -> FittedCalibration | None:
    return None if version.calibration is None else version.calibration.fitted
