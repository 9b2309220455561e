"""An engine in this process that code asks: a server's store, base and scheduler, without HTTP."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from chorus_server.api.jobs.patience import PatientCall
from chorus_server.app import bring_up, build_app, close_app
from chorus_server.engine.handle import RequestHandle
from chorus_server.errors import EngineDeadError
from chorus_server.process import exit_now, upkept
from chorus_server.settings import Settings

T = TypeVar("T")

LOG = logging.getLogger("chorus.cluster")


class Host:
    """Serves this process from construction until `close`. It follows the store as a server does, but leaves
    jobs and upkeep to servers, because it may be killed at any time. If the engine dies, the process ends
    with code 1.

    Args:
        settings: as for `chorus serve`.

    Raises:
        ChorusError, StoreError: the store or the model cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        # Nothing listens, so the rule about binding without a key does not apply.
        self._app = build_app(settings.model_copy(update={"http_host": "127.0.0.1"}))
        self.services = self._app.services
        self._loop = self.services.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chorus-host", daemon=True)
        self._thread.start()
        self._beside = AsyncExitStack()
        self._turn, self._under_way = asyncio.Lock(), deque[RequestHandle]()
        try:
            self.run(self._beside.enter_async_context(upkept(self._app, collecting=False)))
            bring_up(self._app, LOG.info, _on_death, jobs=False)
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine comes to, on the event loop that serves. Not to be called there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def call(self, name: str) -> PatientCall:
        """A call for the tenant of the settings, which waits where a caller's would be refused. The tenant is
        looked up again, as for each request of a caller: it may be suspended.

        Args:
            name: who asks, as usage and limits know it; also begins the ids of its requests.

        Raises:
            ForbiddenError, UnauthenticatedError: the tenant was suspended or deleted.
            NotReadyError, EngineDeadError: the process is ending.
            StoreError: the store does not answer.
        """
        services = self.services
        caller = await services.callers.of_job(services.settings.tenant, name, None)
        return PatientCall(
            services, services.ready(), caller, name, math.inf, lambda: None, {}, "batch",
            turn=self._turn, under_way=self._under_way,
        )  # fmt: skip

    def close(self) -> None:
        """End everything; usage is kept first. May be called again."""
        if self._loop.is_closed():
            return
        self.services.lifecycle.draining()
        self.run(self._beside.aclose())
        close_app(self._app)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _on_death(error: EngineDeadError) -> None:
    """Ray starts another process, and asks again there."""
    LOG.error("the engine died: %s", error.message)
    exit_now(1)
