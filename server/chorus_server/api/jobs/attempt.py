"""One attempt at a job whose work is requests to the engine: block by block, as an inference request's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from chorus_server.api.jobs.patience import PatientCall
from chorus_server.api.services import Services
from chorus_server.engine.handle import RequestHandle
from chorus_server.errors import ChorusError, EngineDeadError, NotReadyError
from chorus_server.jobs.attempt import JobAttempt
from chorus_server.jobs.blocks import Blocks
from chorus_server.jobs.endings import count_attempt
from chorus_server.jobs.leased import ServiceStoppingError
from chorus_server.tenancy.principal import Principal
from prompts_store.errors import StoreError
from prompts_store.files.records import FilePurpose
from prompts_store.jobs.records import MATRIX_DTYPE

T = TypeVar("T")

AskBlock = Callable[[PatientCall], Coroutine[Any, Any, T]]
"""Asks the engine about one block of a job. Runs on the event loop, like the code of a route."""

BLOCKS_AT_ONCE = 16
"""Blocks of a job that are asked at a time."""

MOST_AHEAD = 128
"""Blocks whose answers may wait in memory for the one before them."""

_LOOK_SECONDS = 0.1
_KNOWN_SECONDS = 1.0
_TOLD_TIMES = 100


@dataclass(slots=True)
class EngineAttempt(JobAttempt):
    """What a kind of job works with. Used by one thread.

    Attributes:
        loop: the event loop that serves, on which the engine is asked.
        folder: where an attempt finds what earlier ones left.
    """

    services: Services
    loop: asyncio.AbstractEventLoop
    folder: Path
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _under_way: deque[RequestHandle] = field(default_factory=deque)
    _known: tuple[float, Principal] | None = None

    def begin(self) -> None:
        """Count the attempt, and fix what later ones must have too.

        Raises:
            GaveUpError: attempts ended too often at this row.
        """
        count_attempt(self.progress, self.progress.get("rows", 0), "row")
        self.progress.setdefault("settled", {MATRIX_DTYPE: self.services.base().matrix_dtype})
        self.save_progress()

    def count(self, rows: int) -> None:
        """So many rows more are answered, and kept."""
        self.services.metrics.jobs.rows.inc(rows, self.job.kind)

    def ask(self, block: AskBlock[T]) -> T:
        """What a block of requests comes to.

        They go through the same code, limits and usage as a caller's requests, in class `batch`. Whatever
        this process cannot do now is tried again.

        Raises:
            LeaseLostError, JobCancelledError, ServiceStoppingError: the work may not go on; what was asked is
                cancelled.
            ChorusError: the block cannot be asked.
        """
        return self.held.asking(lambda: self._outcome(self._begun(block)))

    def ask_side_by_side(self, blocks: Iterable[AskBlock[T]]) -> Iterator[T]:
        """What each block comes to, in order. Several are asked at a time, so that the engine always has more
        to do; one that takes long stops none of those after it, up to `MOST_AHEAD`.

        Raises: as `ask`.
        """
        waiting: deque[tuple[AskBlock[T], Future[T]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, self._begun(block)))
                while self._are_many([future for _, future in waiting]):
                    while waiting and waiting[0][1].done():
                        yield self._answer(*waiting.popleft())
                    self.held.check()
            while waiting:
                yield self._answer(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _are_many(self, futures: Sequence[Future[T]]) -> bool:
        """Whether some must end before the next block is asked; waits a moment for one that does."""
        under_way = [future for future in futures if not future.done()]
        if len(under_way) < BLOCKS_AT_ONCE and len(futures) < MOST_AHEAD:
            return False
        concurrent.futures.wait(under_way, _LOOK_SECONDS, concurrent.futures.FIRST_COMPLETED)
        return True

    def _answer(self, block: AskBlock[T], future: Future[T]) -> T:
        try:
            return self._outcome(future)
        except StoreError as error:
            if error.code != StoreError.default_code:
                raise
            return self.ask(block)  # until the store answers

    def work_off(self, rows: int, block_rows: int, answer: Callable[[range], bytes]) -> Iterator[bytes]:
        """Work off all rows, a block at a time, without those that earlier attempts finished, and give the
        contents of all blocks.

        Args:
            answer: the content of the block of these rows, counted from 0. The same rows must give the same
                content.
        """
        blocks = Blocks(self.folder)
        count = -(-rows // block_rows)
        self.progress |= {"phase": "asking", "rows_in_all": rows}
        self.held.update(status="running", progress=self.progress)
        told = -1
        for number in range(count):
            self.held.check()
            done = min(rows, (number + 1) * block_rows)
            if not blocks.have(number):
                blocks.keep(number, answer(range(number * block_rows, done)))
                self.count(done - number * block_rows)
                self.progress["rows"] = done
                self.save_progress()  # also asks whether the lease still holds
            if (share := done * _TOLD_TIMES // rows) > told:
                told = share
                self.held.tell([("rows", {"rows": done, "rows_in_all": rows})])
        return blocks.finished(count)

    def save_file(self, name: str, contents: Iterator[bytes], purpose: FilePurpose = "fine-tune") -> str:
        """See `LeasedJob.save_file`."""
        most = self.services.settings.tuning_max_file_bytes
        return self.held.save_file(name, contents, max_bytes=most, purpose=purpose)

    def _begun(self, block: AskBlock[T]) -> Future[T]:
        async def asked() -> T:
            return await block(await self._call())

        work = asked()
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise ServiceStoppingError from None

    def _outcome(self, future: Future[T]) -> T:
        try:
            while not concurrent.futures.wait([future], _LOOK_SECONDS).done:
                self.held.check()
            return future.result()
        except (NotReadyError, EngineDeadError, concurrent.futures.CancelledError):
            raise ServiceStoppingError from None
        except ChorusError as error:
            if error.code == StoreError.default_code:
                raise StoreError(error.message) from None
            raise
        finally:
            future.cancel()

    async def _call(self) -> PatientCall:
        services = self.services
        serving, caller = services.ready(), await self._caller()
        request_id = f"{self.job.id}.{secrets.token_hex(4)}"
        return PatientCall(
            services, serving, caller, request_id, math.inf, lambda: None, {}, "batch",
            turn=self._turn, under_way=self._under_way,
        )  # fmt: skip

    async def _caller(self) -> Principal:
        """Who the work is charged to, as known for a moment."""
        job, now = self.job, time.monotonic()
        if self._known is None or now - self._known[0] >= _KNOWN_SECONDS:
            found = await self.services.callers.of_job(job.tenant, job.created_by, job.spec.get("key"))
            if (tasks := job.spec.get("tasks")) is not None:  # what the key could name when it made the job
                found = replace(found, tasks=tuple(tasks))
            self._known = (now, found)
        return self._known[1]
