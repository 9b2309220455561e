"""The host tier: prompt values in memory, in the compute dtype. The least recently used are dropped first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import ml_dtypes
import numpy as np

from chorus_server.engine.requests import PromptHandle
from chorus_server.errors import InternalError, InvalidInputError

Values = np.ndarray[Any, Any]

_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class HostPromptTier:
    """Prompt values by digest, within a byte budget.

    A *held* prompt is one that a waiting request needs. It is never dropped, even if held prompts alone
    exceed the budget; the scheduler then fetches no more until they are used. Used only from the engine's
    thread.
    """

    def __init__(self, budget_bytes: int, compute_dtype: str = "float32") -> None:
        self.budget_bytes = budget_bytes
        self.dtype = _DTYPES[compute_dtype]
        self._values: OrderedDict[str, Values] = OrderedDict()
        self._holds: dict[str, int] = {}
        self._bytes = 0
        self._held_bytes = 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._values

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def values(self, digest: str) -> Values:
        """The `[P, D]` values in the compute dtype. Raises KeyError if they are absent, which is a defect of
        the scheduler."""
        self._values.move_to_end(digest)
        return self._values[digest]

    def put(self, digest: str, values: Values) -> None:
        """Keep `values`, which are in the compute dtype. Older prompts that nobody holds make room."""
        if digest in self._values:
            return
        self._values[digest] = values
        self._bytes += values.nbytes
        if digest in self._holds:
            self._held_bytes += values.nbytes
        self._shrink()

    def hold(self, digest: str) -> None:
        """Keep a prompt until a matching `release`. It is present or about to be put."""
        if digest in self._values:
            self._values.move_to_end(digest)
            if digest not in self._holds:
                self._held_bytes += self._values[digest].nbytes
        self._holds[digest] = self._holds.get(digest, 0) + 1

    def release(self, digest: str) -> None:
        """Undo one `hold`."""
        self._holds[digest] -= 1
        if not self._holds[digest]:
            del self._holds[digest]
            self._held_bytes -= self._values[digest].nbytes
            self._shrink()

    def _shrink(self) -> None:
        if self._bytes <= self.budget_bytes:
            return
        for digest in [digest for digest in self._values if digest not in self._holds]:
            if self._bytes <= self.budget_bytes:
                return
            self._bytes -= self._values.pop(digest).nbytes


def to_compute_dtype(handle: PromptHandle, values: Values, dtype: np.dtype[Any]) -> Values:
    """`values` `[P, D]` f32, checked against their handle and cast to `dtype`, read-only.

    Raises:
        InternalError: the source returned another shape than the handle promised.
        InvalidInputError: not every value is finite in `dtype`.
    """
    if values.ndim != 2 or values.shape[0] != handle.length:
        raise InternalError(
            f"Prompt {handle.digest[:12]} has shape {list(values.shape)}, expected {handle.length} rows: "
            "check the prompt store."
        )
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(values.astype(dtype))
    if not np.isfinite(cast.astype(np.float32)).all():
        raise InvalidInputError(
            f"Prompt {handle.digest[:12]} has values that are not finite in {dtype.name}: "
            "upload a corrected version.",
            field="task",
            code="prompt_not_finite",
        )
    cast.flags.writeable = False
    return cast
