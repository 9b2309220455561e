"""The store as a job uses it: each call is asked again while the store does not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prompts_store.records import (
    AliasMove,
    EnsembleMember,
    EnsembleVersion,
    PromptManifest,
    PromptVersion,
    Published,
    Reference,
)
from prompts_store.tuning_records import DataFile, JobLease
from server.tuning.service.held import HeldJob
from server.tuning.service.preparing import PromptReader
from server.tuning.service.publishing import PromptPublisher


class ReadAndPublished(PromptReader, PromptPublisher, Protocol):
    """The part of `PromptStore` that a job's prompts come from and go to."""


class PatientStore:
    """A `PromptReader` and `PromptPublisher` that outlasts a short outage. Raises as the store does, or
    LeaseLostError. Each call is asked again by itself, so that a store that comes and goes is got through."""

    def __init__(self, store: ReadAndPublished, held: HeldJob) -> None:
        self._store = store
        self._held = held

    def get_file(self, tenant: str, file_id: str) -> DataFile:
        return self._held.asking(lambda: self._store.get_file(tenant, file_id))

    def file_path(self, tenant: str, file_id: str) -> Path:
        return self._held.asking(lambda: self._store.file_path(tenant, file_id))

    def resolve(self, reference: str | Reference, *, tenant: str, field: str = "task") -> PromptVersion:
        return self._held.asking(lambda: self._store.resolve(reference, tenant=tenant, field=field))

    def values(self, digest: str) -> npt.NDArray[np.float32]:
        return self._held.asking(lambda: self._store.values(digest))

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
        lease: JobLease | None = None,
    ) -> Published:
        return self._held.asking(
            lambda: self._store.publish(
                tenant,
                task,
                values,
                manifest,
                created_by=created_by,
                lineage=lineage,
                metrics=metrics,
                description=description,
                lease=lease,
            )
        )

    def publish_ensemble(
        self,
        tenant: str,
        name: str,
        members: Sequence[EnsembleMember],
        *,
        created_by: str = "",
        lease: JobLease | None = None,
    ) -> tuple[EnsembleVersion, bool]:
        return self._held.asking(
            lambda: self._store.publish_ensemble(tenant, name, members, created_by=created_by, lease=lease)
        )

    def set_alias(
        self,
        tenant: str,
        task: str,
        alias: str,
        number: int,
        *,
        moved_by: str = "",
        lease: JobLease | None = None,
    ) -> AliasMove:
        return self._held.asking(
            lambda: self._store.set_alias(tenant, task, alias, number, moved_by=moved_by, lease=lease)
        )
