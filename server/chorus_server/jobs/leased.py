"""A job that this process holds: each write needs the lease, and outlasts a short outage of the store.

A lost lease, a cancellation, a pause and a stop of the service all end the work with an exception at its next
`check`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar, cast

from prompts_store.errors import LeaseLostError, StoreError
from prompts_store.files.records import FilePurpose
from prompts_store.jobs.records import Job, Lease
from prompts_store.store import PromptStore

logger = logging.getLogger(__name__)

T = TypeVar("T")
_RENEWALS_A_LEASE = 3
_PIECE_BYTES = 1 << 20
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0


class JobCancelledError(Exception):
    """The job was cancelled.

    Args:
        result: what the work made before it stopped, if that is of use.
    """

    def __init__(self, result: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.result = result


class ServiceStoppingError(Exception):
    """The process is stopping; the job goes back into the queue."""


class JobPausedError(ServiceStoppingError):
    """The job was paused; it goes back into the queue, and waits there until it is resumed."""


class LeasedJob:
    """One claimed job.

    Args:
        patience_seconds: how long a store that does not answer is tried again.
        stopping: set when the service stops.
    """

    def __init__(
        self,
        store: PromptStore,
        job: Job,
        lease: Lease,
        lease_seconds: float,
        patience_seconds: float,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self.lost = threading.Event()
        self.cancelled = threading.Event()
        self.paused = threading.Event()
        self._note(job)
        self._store = store
        self._lease = lease
        self._lease_seconds = lease_seconds
        self._patience = patience_seconds
        self._stopping = stopping
        self._clock = clock
        self._renewed = clock()

    @property
    def token(self) -> int:
        """The fencing token."""
        return self._lease.token

    @property
    def lease(self) -> Lease:
        """The lease as last renewed, to publish under."""
        return self._lease

    @property
    def store(self) -> PromptStore:
        """The store; each call is repeated during a short outage. Raises as the store does, or
        LeaseLostError."""
        return cast(PromptStore, _Patient(self, self._store))

    @contextmanager
    def kept(self, beat_seconds: float) -> Iterator[None]:
        """Inside the block, a thread renews the lease, whatever the attempt is busy with.

        Args:
            beat_seconds: between two beats; at most a third of the lease.
        """
        over = threading.Event()

        def beat() -> None:
            while not over.wait(beat_seconds) and not self.lost.is_set():
                self.keep()

        thread = threading.Thread(target=beat, name="chorus-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            LeaseLostError, JobCancelledError, JobPausedError, ServiceStoppingError: it may not.
        """
        if self.lost.is_set():
            raise self._gone()
        if self.cancelled.is_set():
            raise JobCancelledError
        if self.paused.is_set():
            raise JobPausedError
        if self._stopping.is_set():
            raise ServiceStoppingError

    def keep(self) -> None:
        """One beat: look for a cancellation or a pause, and renew the lease once a third of it is over. A
        store that does not answer is tried again at the next beat."""
        try:
            now = self._clock()
            if now - self._renewed >= self._lease_seconds / _RENEWALS_A_LEASE:
                self._lease = self._store.renew_lease(self._lease, self._lease_seconds)
                self._renewed = now
            self._note(self._store.get_job(self.job.tenant, self.job.id))
        except LeaseLostError:
            self.lost.set()
        except StoreError:
            logger.warning("could not renew the lease of %s, will try again", self.job.id)

    def update(
        self,
        *,
        status: Literal["preparing", "running"] | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the job's progress."""
        self._note(self.asking(lambda: self._store.update_job(self._lease, status=status, progress=progress)))

    def tell(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Append events."""
        if events:
            self.asking(lambda: self._store.append_events(self._lease, events))

    def finish(
        self,
        status: Literal["succeeded", "failed", "cancelled"],
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """End the job."""
        self.asking(lambda: self._store.finish_job(self._lease, status, result=result, error=error))

    def save_file(
        self, name: str, contents: Iterator[bytes], *, max_bytes: int, purpose: FilePurpose = "fine-tune"
    ) -> str:
        """Store a result as a data file of the job's tenant: its id. A file that an earlier attempt stored
        just before it ended serves.

        Args:
            name: begins with the job's id, so that no other job's file has it.
            max_bytes: the most that it may have.
            purpose: what the file is for.

        Raises:
            LeaseLostError: another process has the job.
            LimitError: the tenant may keep no more.
        """
        store, tenant = self.store, self.job.tenant
        self.update()  # asks whether the lease still holds
        job = self.job
        for file in store.list_files(tenant, name=name, purpose=purpose).items:
            # Whoever uploads a file may call it so too. Of an older Chorus's only the name is known.
            if file.made_by == job.id or (file.made_by is None and file.created_by == job.created_by):
                return file.id
        said: dict[str, Any] = {"created_by": job.created_by, "made_by": job.id, "max_bytes": max_bytes}
        with store.write_file(tenant, name, purpose=purpose, **said) as writer:
            for content in contents:
                for start in range(0, len(content), _PIECE_BYTES):
                    writer.write(content[start : start + _PIECE_BYTES])
            self.update()  # asks again: writing may have taken long
            return writer.commit().id

    def release(self) -> None:
        """Put the job back into the queue. Raises if the store does not answer: the lease then runs out."""
        self._store.release_job(self._lease)

    def asking(self, ask: Callable[[], T]) -> T:
        """The store's answer. While the store is away, the call is repeated, less and less often.

        Raises:
            LeaseLostError: the lease is lost, or the store was away for too long.
            StoreError: the store refuses.
        """
        started, pause = self._clock(), _PAUSE_SECONDS
        while True:
            if self.lost.is_set():
                raise self._gone()
            try:
                return ask()
            except LeaseLostError:
                self.lost.set()
                raise
            except StoreError as error:
                if error.code != "store_unavailable":
                    raise
                if self._clock() - started > self._patience or self._stopping.is_set():
                    self.lost.set()
                    raise self._gone() from error
                logger.warning("the store does not answer; %s waits for it: %s", self.job.id, error.message)
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _note(self, job: Job) -> None:
        """Take over what was asked of the job."""
        if job.cancel_requested:
            self.cancelled.set()
        if job.paused:
            self.paused.set()

    def _gone(self) -> LeaseLostError:
        return LeaseLostError(f"The lease of {self.job.id} is lost; another may run it.", field="lease")


class _Patient:
    """Repeats each call of a store that does not answer."""

    def __init__(self, held: LeasedJob, store: PromptStore) -> None:
        self._held = held
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            return self._held.asking(partial(method, *args, **kwargs))

        return ask
