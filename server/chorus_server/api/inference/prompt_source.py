"""The store as the engine's source of prompt values."""

from __future__ import annotations

from typing import Any

import numpy as np

from chorus_server.api.http.errors import StoreAnswerError
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore


class StorePrompts:
    """A `PromptSource`: values by digest, checked by the store. The engine calls it on its loader threads."""

    def __init__(self, store: PromptStore) -> None:
        self._store = store

    def fetch(self, digest: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The `[P, D]` f32 values. Raises StoreAnswerError, which fails only the requests for this prompt."""
        try:
            return self._store.values(digest)
        except StoreError as error:
            raise StoreAnswerError(error, "task") from error
