"""What the service needs to know: its settings, and the base model that it trains against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from server.model.functions import Functions
from server.model.layout import PyTree
from server.model.vocabulary import Vocabulary

Because = Callable[[str], AbstractContextManager[None]]
"""Entered around work that compiles, with its cause; `CompileWatch.because` in a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """How jobs are run.

    Attributes:
        folder: of checkpoints and downloads; one folder a job.
        owner: who claims jobs, for people.
        slice_seconds: longest device dispatch that a job is prepared for.
        longest_seconds: above this a job is refused; None where nobody waits for the device.
        lease_seconds: until another may take a job whose runner is silent.
        poll_seconds: how often to look for jobs, and for a cancellation of the one that runs.
        keep_seconds: how long the checkpoint of a failed or cancelled job is kept, to be resumed from.
        patience_seconds: how long a store that does not answer is asked again before the job is let go.
        max_file_bytes: of a download.
        max_row_bytes: of one row of a dataset.
        data_paths: folders, and files, that jobs may read.
        data_urls: beginnings of URLs that jobs may fetch.
        download_seconds: longest download.
        code_version: for the lineage.
    """

    folder: Path
    owner: str
    slice_seconds: float = 0.06
    longest_seconds: float | None = None
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    keep_seconds: float = 14 * 86_400.0
    patience_seconds: float = 300.0
    max_file_bytes: int = 256 << 20
    max_row_bytes: int = 1 << 20
    data_paths: tuple[Path, ...] = ()
    data_urls: tuple[str, ...] = ()
    download_seconds: float = 600.0
    code_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningBase:
    """The frozen model.

    Attributes:
        embeddings: reads the `[V, D]` embedding table to host memory; may be slow the first time.
        memory_room: device bytes that training may take beside what is resident.
        max_prompt_rows: longest prompt that can be served here.
        max_label_tokens: longest label, with `</s>`, that can be ranked here.
    """

    functions: Functions
    params: PyTree
    vocabulary: Vocabulary
    fingerprint: str
    embeddings: Callable[[], np.ndarray[Any, Any]]
    memory_room: int
    max_prompt_rows: int
    max_label_tokens: int

    def embed(self, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Rows of the embedding table [n, D], f32."""
        return np.asarray(self.embeddings()[list(ids)], np.float32)

    @property
    def width(self) -> int:
        """D."""
        return self.functions.config.d_model
