"""A few daemon threads that fetch prompts from the store, off the engine's thread."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from chorus_server.engine.host_prompts import Values, to_compute_dtype
from chorus_server.engine.protocols import PromptSource
from chorus_server.engine.requests import PromptHandle
from chorus_server.engine.scheduler.loading import load_error
from chorus_server.errors import ChorusError

logger = logging.getLogger(__name__)

Loaded = Callable[[PromptHandle, Values | ChorusError, float], None]
"""Called on a loader thread with (prompt, its values in the compute dtype or the error, seconds it took)."""


class LoaderPool:
    """Fetches, checks and casts prompts. Its threads are daemons: a store that hangs must not keep a dying
    process alive."""

    def __init__(
        self,
        source: PromptSource,
        dtype: np.dtype[Any],
        threads: int,
        clock: Callable[[], float],
        loaded: Loaded,
    ) -> None:
        self._source = source
        self._dtype = dtype
        self._clock = clock
        self._loaded = loaded
        self._wanted: queue.SimpleQueue[PromptHandle | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"chorus-loader-{index}", daemon=True)
            for index in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def fetch(self, prompt: PromptHandle) -> None:
        """Fetch a prompt. `loaded` is called when it has come or failed."""
        self._wanted.put(prompt)

    def stop(self, timeout_seconds: float) -> None:
        """Stop the threads. One that hangs in the store is left behind."""
        for _ in self._threads:
            self._wanted.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout_seconds)

    def _run(self) -> None:
        while (prompt := self._wanted.get()) is not None:
            started = self._clock()
            self._loaded(prompt, self._fetch(prompt), self._clock() - started)

    def _fetch(self, prompt: PromptHandle) -> Values | ChorusError:
        try:
            return to_compute_dtype(prompt, self._source.fetch(prompt.digest), self._dtype)
        except ChorusError as error:
            return error
        except Exception as error:
            logger.exception("prompt %s could not be read", prompt.digest[:12])
            return load_error(prompt.digest, error)
