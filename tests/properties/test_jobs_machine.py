"""Tuning jobs against a model of plain dictionaries: two workers on one database, a clock that moves, leases
that run out while their owners sleep, any order of any operations.

Leases are kept when they are lost, and tried again and again: at most one of a job's is ever good.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.job_tables import jobs
from prompts_store.errors import ConflictError, LeaseLostError, LimitError
from prompts_store.jobs.records import Job, JobStatus, Lease
from prompts_store.testing import FakeClock
from tests.postgres_server import PostgresServer
from tests.properties.machine_settings import machine_settings

SPEC = {"base_fingerprint": "base"}
SIDES = st.integers(0, 1)
# Mostly the newest, where most can happen.
PICKS = st.sampled_from([0, 0, 0, 1, 2, 5])
TENANTS = ("a", "b")
MOST = 3
OVER = ("succeeded", "failed", "cancelled")


@dataclass
class ModelJob:
    """A job, and who may write to it: the newest token, while `expires_at` is set."""

    id: str
    tenant: str
    queued_at: datetime
    status: JobStatus = "queued"
    token: int = 0
    expires_at: datetime | None = None
    cancel_requested: bool = False
    attempt: int = 0
    statuses: list[str] = field(default_factory=lambda: ["queued"])
    notes: list[str] = field(default_factory=list)
    succeeded: int = 0

    def become(self, status: JobStatus, expires_at: datetime | None = None) -> None:
        self.status, self.expires_at = status, expires_at
        self.statuses.append(status)
        self.succeeded += status == "succeeded"


class JobsMachine(RuleBasedStateMachine):
    """Rules are operations; every answer is compared where it is given, and the whole state after each."""

    store_type = PromptStore
    server: PostgresServer | None = None
    on_disk = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.jobs: list[ModelJob] = []
        self.leases: list[tuple[int, Lease]] = []
        self.notes = 0
        self.folder = tempfile.TemporaryDirectory()
        self.stores: list[PromptStore] = []

    @initialize()
    def open(self) -> None:
        if self.server is None and not self.on_disk:
            one = self.store_type.in_memory(clock=self.clock)
            self.stores = [one, self.store_type(one._database, one._blobs, self.clock)]
            return
        url = self.server.emptied() if self.server is not None else None
        folder = Path(self.folder.name)
        self.stores = [self.store_type.open(folder, database_url=url, clock=self.clock) for _ in range(2)]

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.folder.cleanup()

    @rule(tenant=st.sampled_from(TENANTS), side=SIDES)
    def create(self, tenant: str, side: int) -> None:
        if self._unfinished(tenant) >= MOST:
            with pytest.raises(LimitError):
                self.stores[side].create_job(tenant, "tuning", SPEC, max_unfinished=MOST)
            return
        made = self.stores[side].create_job(tenant, "tuning", SPEC, max_unfinished=MOST)
        self.jobs.append(ModelJob(made.id, tenant, self.clock()))

    @rule(seconds=st.sampled_from([1, 5, 10, 30]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(side=SIDES, seconds=st.sampled_from([5, 10, 20]))
    def claim(self, side: int, seconds: int) -> None:
        claimed = self.stores[side].claim_job("tuning", f"worker {side}", seconds, "base")
        expected = self._next()
        if expected is None:
            assert claimed is None
            return
        assert claimed is not None
        job, lease = claimed
        expected.token += 1
        expected.attempt += 1
        expected.become("preparing", self.clock() + timedelta(seconds=seconds))
        assert (job.id, lease.token, job.attempt) == (expected.id, expected.token, expected.attempt)
        assert lease.expires_at == expected.expires_at
        self.leases = [*self.leases[-7:], (side, lease)]

    @precondition(lambda self: self.leases)
    @rule(pick=PICKS, seconds=st.sampled_from([5, 20]))
    def renew(self, pick: int, seconds: int) -> None:
        with self._writing(pick) as (store, lease, model):
            renewed = store.renew_lease(lease, seconds)
            model.expires_at = self.clock() + timedelta(seconds=seconds)
            assert renewed == replace(lease, expires_at=model.expires_at)

    @precondition(lambda self: self.leases)
    @rule(pick=PICKS)
    def run(self, pick: int) -> None:
        with self._writing(pick) as (store, lease, model):
            seen = store.update_job(lease, status="running", progress={"token": lease.token})
            if model.status != "running":
                model.become("running", model.expires_at)
            assert (seen.cancel_requested, seen.progress) == (model.cancel_requested, {"token": lease.token})

    @precondition(lambda self: self.leases)
    @rule(pick=PICKS, count=st.integers(0, 2))
    def note(self, pick: int, count: int) -> None:
        notes = [f"{self.notes + i}" for i in range(count)]
        self.notes += count
        with self._writing(pick) as (store, lease, model):
            store.append_events(lease, [("note", {"text": text}) for text in notes])
            model.notes += notes

    @precondition(lambda self: self.leases)
    @rule(pick=PICKS)
    def give_back(self, pick: int) -> None:
        with self._writing(pick) as (store, lease, model):
            store.release_job(lease)
            model.become("cancelled" if model.cancel_requested else "queued")

    @precondition(lambda self: self.leases)
    @rule(pick=PICKS, status=st.sampled_from(OVER))
    def finish(self, pick: int, status: Literal["succeeded", "failed", "cancelled"]) -> None:
        with self._writing(pick) as (store, lease, model):
            assert store.finish_job(lease, status).status == status
            model.become(status)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICKS, side=SIDES)
    def cancel(self, pick: int, side: int) -> None:
        model = self.jobs[-1 - pick % len(self.jobs)]
        if model.status in OVER:
            with pytest.raises(ConflictError):
                self.stores[side].cancel_job(model.tenant, model.id)
            return
        seen = self.stores[side].cancel_job(model.tenant, model.id)
        if model.expires_at is None or model.expires_at <= self.clock():
            model.become("cancelled")
        elif not model.cancel_requested:
            model.cancel_requested = True
            model.statuses.append(model.status)
        assert (seen.status, seen.cancel_requested) == (model.status, model.cancel_requested)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICKS, side=SIDES)
    def resume(self, pick: int, side: int) -> None:
        model = self.jobs[-1 - pick % len(self.jobs)]
        store = self.stores[side]
        if model.status not in ("failed", "cancelled"):
            with pytest.raises(ConflictError):
                store.resume_job(model.tenant, model.id, max_unfinished=MOST)
        elif self._unfinished(model.tenant) >= MOST:
            with pytest.raises(LimitError):
                store.resume_job(model.tenant, model.id, max_unfinished=MOST)
        else:
            store.resume_job(model.tenant, model.id, max_unfinished=MOST)
            model.cancel_requested, model.queued_at = False, self.clock()
            model.become("queued")

    @invariant()
    def at_most_one_lease_of_a_job_is_good(self) -> None:
        good = []
        for side, lease in self.leases:
            try:
                self.stores[side].append_events(lease, [])
                good.append((lease.job_id, lease.token))
            except LeaseLostError:
                pass
        assert len({job_id for job_id, _ in good}) == len(good), "two runners may write to one job"
        newest = {(job.id, job.token) for job in self.jobs if job.expires_at is not None}
        assert set(good) == newest & {(lease.job_id, lease.token) for _, lease in self.leases}

    @invariant()
    def both_workers_see_what_the_model_says(self) -> None:
        for store in self.stores:
            found = {job.id: job for tenant in TENANTS for job in store.list_jobs(tenant, "tuning").items}
            assert found.keys() == {model.id for model in self.jobs}
            for model in self.jobs:
                self._compare(store, found[model.id], model)

    def _compare(self, store: PromptStore, job: Job, model: ModelJob) -> None:
        assert (job.status, job.attempt) == (model.status, model.attempt)
        assert job.cancel_requested == model.cancel_requested
        assert (job.finished_at is None) == (model.status not in OVER)
        events = store.job_events(model.tenant, model.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.data["status"] for event in events if event.kind == "status"] == model.statuses
        assert [event.data["text"] for event in events if event.kind == "note"] == model.notes
        assert model.succeeded <= 1

    @contextmanager
    def _writing(self, pick: int) -> Iterator[tuple[PromptStore, Lease, ModelJob]]:
        """A lease to write with, old or new: a write with one that is lost must fail, and does nothing."""
        side, lease = self.leases[-1 - pick % len(self.leases)]
        model = next(job for job in self.jobs if job.id == lease.job_id)
        if model.token == lease.token and model.expires_at is not None:
            yield self.stores[side], lease, model
            return
        with pytest.raises(LeaseLostError):
            yield self.stores[side], lease, replace(model)

    def _unfinished(self, tenant: str) -> int:
        return sum(job.tenant == tenant and job.status not in OVER for job in self.jobs)

    def _next(self) -> ModelJob | None:
        """Whose turn it is, in other words than the query's."""
        now = self.clock()
        at_work = [job for job in self.jobs if job.expires_at is not None and job.expires_at > now]
        waiting = [job for job in self.jobs if job.status not in OVER and job not in at_work]
        busy = {tenant: sum(job.tenant == tenant for job in at_work) for tenant in TENANTS}
        return min(
            waiting, key=lambda job: (busy[job.tenant], job.queued_at, self.jobs.index(job)), default=None
        )


def test_jobs_are_the_model_in_memory() -> None:
    run_state_machine_as_test(JobsMachine, settings=machine_settings(30, 40))


def test_jobs_are_the_model_on_disk() -> None:
    class OnDisk(JobsMachine):
        on_disk = True

    run_state_machine_as_test(OnDisk, settings=machine_settings(6, 30))


def test_jobs_are_the_model_on_postgresql(postgres_server: PostgresServer) -> None:
    class OnPostgres(JobsMachine):
        server = postgres_server

    run_state_machine_as_test(OnPostgres, settings=machine_settings(6, 30))


class UnfencedStore(PromptStore):
    """A broken store: whoever has the job's id may write, whatever the token."""

    def append_events(self, lease: Lease, events: Any) -> None:
        with self._database.read(EVERY_TENANT) as connection:
            newest = select(jobs.c.lease_token).where(jobs.c.id == lease.job_id)
            token = connection.execute(newest).scalar_one()
        super().append_events(replace(lease, token=token), events)


class HastyStore(PromptStore):
    """A broken store: a lease that still has a little to run is taken already."""

    def claim_job(
        self, kind: Any, owner: str, lease_seconds: float, base_fingerprint: str, *more: Any
    ) -> Any:
        clock = self._clock
        self._clock = lambda: clock() + timedelta(seconds=4)
        try:
            return super().claim_job(kind, owner, lease_seconds, base_fingerprint, *more)
        finally:
            self._clock = clock


class LenientStore(PromptStore):
    """A broken store: whoever finishes too late finishes too."""

    def finish_job(self, lease: Lease, status: Any, **options: Any) -> Job:
        try:
            return super().finish_job(lease, status, **options)
        except LeaseLostError:
            return self.get_job(lease.tenant, lease.job_id)


class ForgetfulStore(PromptStore):
    """A broken store: a job that is given back forgets that it was to be cancelled."""

    def release_job(self, lease: Lease) -> None:
        with self._database.write(EVERY_TENANT) as connection:
            which = jobs.c.id == lease.job_id
            connection.execute(update(jobs).where(which).values(cancel_requested=False))
        super().release_job(lease)


@pytest.mark.parametrize("broken", [UnfencedStore, HastyStore, LenientStore, ForgetfulStore])
def test_control_a_broken_store_is_noticed(broken: type[PromptStore]) -> None:
    class BrokenMachine(JobsMachine):
        store_type = broken

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_state_machine_as_test(
            BrokenMachine, settings=settings(machine_settings(100, 40), phases=[Phase.generate])
        )
