"""Reads of a job from the store, asked again while it does not answer, as its writes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from prompts_store.records import PromptVersion, Reference
from prompts_store.tuning_records import DataFile
from server.tuning.service.held import HeldJob
from server.tuning.service.preparing import PromptReader


class PatientReader:
    """A `PromptReader` that outlasts a short outage. Raises as the store does, or LeaseLostError."""

    def __init__(self, store: PromptReader, held: HeldJob) -> None:
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
