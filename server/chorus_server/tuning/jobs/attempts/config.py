"""Settings of the service, and the base model that it trains against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from chorus_server.jobs.runner import RunnerConfig
from chorus_server.model.functions import Functions
from chorus_server.model.layout import PyTree
from chorus_server.model.vocabulary import Vocabulary

Because = Callable[[str], AbstractContextManager[None]]
"""Entered around work that compiles, with its cause; `CompileWatch.because` in a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig(RunnerConfig):
    """How tuning jobs are run; `folder` has their checkpoints and downloads.

    Attributes:
        slice_seconds: longest device dispatch to aim for.
        longest_seconds: a job with a longer dispatch is refused; None where nobody waits for the device.
        max_file_bytes: of a download.
        max_row_bytes: of one row of a dataset.
        data_paths: folders and files that jobs may read.
        data_urls: beginnings of URLs that jobs may fetch.
        download_seconds: longest download.
        code_version: for the lineage.
    """

    slice_seconds: float = 0.06
    longest_seconds: float | None = None
    max_file_bytes: int = 256 << 20
    max_row_bytes: int = 1 << 20
    data_paths: tuple[Path, ...] = ()
    data_urls: tuple[str, ...] = ()
    download_seconds: float = 600.0
    code_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningBase:
    """The frozen base model.

    Attributes:
        embeddings: reads the `[V, D]` embedding table into host memory; the first call may be slow.
        memory_room: device bytes that training may use beside what is resident.
        max_prompt_rows: of the longest prompt that this server can serve.
        max_label_tokens: of the longest label, with `</s>`, that this server can rank.
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
    def matrix_dtype(self) -> str:
        """The type of the matrices, by which a job that was begun goes on."""
        return str(jnp.dtype(self.functions.matrix_dtype).name)

    @property
    def width(self) -> int:
        """D."""
        return self.functions.config.d_model
