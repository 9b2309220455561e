"""A fault at every step of what is done with data files and jobs: exactly the old state or the new one.

The same sweep as for prompts, and once more with a power cut at each step.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.blobs import ContentWriter, LocalContents
from prompts_store.errors import LeaseLostError, StoreError
from prompts_store.jobs.records import Lease
from prompts_store.testing import Died, FakeClock, Fault, FaultyFiles, PowerCutFiles, example_file, file_bytes
from tests.faults.store_faults import MAX_STEPS, DyingDisk, ShortWrites, attempt, faulty_store, sweep

SPEC = {"base_fingerprint": "base"}
NEW_ROWS, OLD_ROWS = b"new rows " * 1000, b"old rows"


@dataclass
class Prepared:
    """What every sweep starts from: files that are used, unused and deleted; jobs in each kind of state."""

    spare: str
    train: str
    queued: str
    stopped: str
    lease: Lease


def _prepare(store: PromptStore) -> Prepared:
    spare, train = (example_file(store, OLD_ROWS, name=name) for name in ("spare.csv", "train.csv"))
    store.delete_file("acme", example_file(store, b"deleted").id)
    stopped = store.create_job("acme", "tuning", SPEC).id
    store.cancel_job("acme", stopped)
    store.create_job("acme", "tuning", SPEC, files={"data.train.file": train.id})
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    queued = store.create_job("other", "tuning", SPEC).id
    return Prepared(spare.id, train.id, queued, stopped, claimed[1])


def _visible(store: PromptStore) -> object:
    """Everything that a caller can see of files and jobs, but for the ids, which are random."""
    files = store.list_files("acme").items
    jobs = [job for tenant in ("acme", "other") for job in store.list_jobs(tenant, "tuning").items]
    return (
        [(file.name, file.size_bytes, file_bytes(store, "acme", file.id)) for file in files],
        [
            (job.tenant, job.status, job.attempt, job.cancel_requested, job.paused, job.progress, job.result)
            for job in jobs
        ],
        [
            [(event.seq, event.kind, event.data) for event in store.job_events(job.tenant, job.id)]
            for job in jobs
        ],
    )


def _upload(store: PromptStore, content: bytes = NEW_ROWS) -> object:
    with store.write_file("acme", "new.csv", max_bytes=len(content)) as writer:
        writer.write(content[:100])
        writer.write(content[100:])
        return writer.commit()


OPERATIONS: dict[str, Callable[[PromptStore, Prepared], object]] = {
    "upload": lambda store, at: _upload(store),
    "upload known content": lambda store, at: _upload(store, OLD_ROWS),
    "upload deleted content": lambda store, at: _upload(store, b"deleted"),
    "delete a file": lambda store, at: store.delete_file("acme", at.spare),
    "create a job": lambda store, at: store.create_job(
        "acme", "tuning", SPEC, files={"data.train.file": at.train}
    ),
    "claim": lambda store, at: store.claim_job("tuning", "worker", 60, "base"),
    "update": lambda store, at: store.update_job(at.lease, status="running", progress={"step": 1}),
    "append events": lambda store, at: store.append_events(
        at.lease, [("step", {"n": 1}), ("step", {"n": 2})]
    ),
    "release": lambda store, at: store.release_job(at.lease),
    "finish": lambda store, at: store.finish_job(at.lease, "succeeded", result={"version": 1}),
    "cancel a queued job": lambda store, at: store.cancel_job("other", at.queued),
    "cancel a running job": lambda store, at: store.cancel_job("acme", at.lease.job_id),
    "pause a running job": lambda store, at: store.pause_job("acme", at.lease.job_id),
    "resume": lambda store, at: store.resume_job("acme", at.stopped),
}


def _clear_leftovers(observer: PromptStore) -> None:
    """Every step starts from the same disk: what the step before has left goes, as in a collection."""
    observer._contents.sweep(datetime(2100, 1, 1, tzinfo=UTC))
    observer.collect(grace_seconds=0)


@pytest.mark.parametrize("fault", ["die", "EIO", "ENOSPC"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_step_leaves_the_old_state_or_the_new(tmp_path: Path, name: str, fault: Fault) -> None:
    clock = FakeClock()
    with (
        closing(PromptStore.open(tmp_path, clock=clock)) as observer,
        closing(PromptStore.open(tmp_path / "twin", clock=clock)) as twin,
    ):
        at, at_twin = _prepare(observer), _prepare(twin)
        old = _visible(observer)
        OPERATIONS[name](twin, at_twin)
        new = _visible(twin)
        assert new != old

        def look() -> object:
            assert observer.check().clean
            return _visible(observer)

        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            steps = sweep(
                store,
                files,
                lambda store: OPERATIONS[name](store, at),
                fault,
                look=look,
                old=old,
                new=new,
                again=lambda: _clear_leftovers(observer),
            )
        assert steps > 4, "nothing was swept"
        clock.advance(1)
        observer.collect(grace_seconds=0)
        report = observer.check()
        assert report.clean and (report.orphans, report.temporary_files) == (0, 0)


def _uploads_with_a_cut_at_every_step(folder: Path, lies: frozenset[str] = frozenset()) -> list[str]:
    """The kinds of problems that a cut at some step of an upload, or right after it, has left."""
    clock = FakeClock()
    found: list[str] = []
    with closing(PromptStore.open(folder, clock=clock)) as observer:
        example_file(observer, OLD_ROWS, name="old.csv")
        for step in range(1, MAX_STEPS):
            files = DyingDisk(lies)
            store, _ = faulty_store(folder, clock, files)
            with closing(store):
                finished = attempt(store, files, "die", step, _upload)
            files.cut()
            found += [problem.kind for problem in observer.check().problems]
            names = [file.name for file in observer.list_files("acme").items]
            assert names in ([["new.csv", "old.csv"]] if finished else [["old.csv"], ["new.csv", "old.csv"]])
            if "new.csv" in names:
                assert step > 10, "nothing was swept"
                return found
            if not found:
                _visible(observer)
            _clear_leftovers(observer)
    pytest.fail(f"not finished after {MAX_STEPS} steps")


def test_a_power_cut_at_every_step_leaves_no_file_or_all_of_it(tmp_path: Path) -> None:
    assert _uploads_with_a_cut_at_every_step(tmp_path) == []


@pytest.mark.parametrize(("lie", "kind"), [("sync", "corrupt_file"), ("sync_folder", "missing_file")])
def test_control_without_a_sync_an_acknowledged_file_is_lost(tmp_path: Path, lie: str, kind: str) -> None:
    assert kind in _uploads_with_a_cut_at_every_step(tmp_path, frozenset({lie}))


def test_a_short_write_at_any_step_is_written_on(tmp_path: Path) -> None:
    files = ShortWrites()
    with closing(PromptStore.open(tmp_path, files=files)) as store:
        for step in range(1, 12):
            files.arm("short", step)
            file = example_file(store, f"{step} {NEW_ROWS!r}".encode())
            assert file_bytes(store, "acme", file.id) == f"{step} {NEW_ROWS!r}".encode()
        assert files.shorts >= 1
        assert store.check().clean


def test_control_bytes_that_come_after_their_row_are_noticed(tmp_path: Path) -> None:
    """A store that commits the row first and names the bytes afterwards leaves a third state: it is seen."""

    class RowFirst(LocalContents):
        late: tuple[ContentWriter, str]

        def keep(self, writer: ContentWriter, digest: str) -> bool:
            self.late = (writer, digest)
            return True

    clock, files = FakeClock(), FaultyFiles()
    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        contents = RowFirst(tmp_path / "files", files=files)
        store = PromptStore(observer._database, observer._blobs, clock, contents=contents)
        with pytest.raises(Died), store.write_file("acme", "new.csv", max_bytes=10) as writer:
            writer.write(b"rows")
            writer.commit()
            files.arm("die", 1)
            LocalContents.keep(contents, *contents.late)
        assert [problem.kind for problem in observer.check().problems] == ["missing_file"]
        with pytest.raises(StoreError):
            _visible(observer)


def test_a_sweep_spares_an_upload_that_lives(tmp_path: Path) -> None:
    """The control is a sweep that knows no locks."""

    class Blind(PowerCutFiles):
        def is_locked(self, path: Path) -> bool:
            return False

    clock = FakeClock()
    outcomes = []
    for name, files in (("seeing", None), ("blind", Blind())):
        with (
            closing(PromptStore.open(tmp_path / name, clock=clock)) as uploading,
            closing(PromptStore.open(tmp_path / name, clock=clock, files=files)) as other,
            uploading.write_file("acme", "slow.csv", max_bytes=100) as writer,
        ):
            writer.write(b"slow")
            clock.advance(3600)
            other.collect(grace_seconds=60)
            try:
                writer.commit()
                outcomes.append("kept")
            except StoreError:
                outcomes.append("lost")
            assert other.check().clean
    assert outcomes == ["kept", "lost"]


def test_a_dead_runner_writes_nothing(tmp_path: Path) -> None:
    """Every write that a runner could make after another took its job fails whole, at no step half."""
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path, clock=clock)) as store:
        at = _prepare(store)
        clock.advance(60)
        taken = [store.claim_job("tuning", "next", 60, "base") for _ in range(2)]
        assert at.lease.job_id in [claim[0].id for claim in taken if claim]
        before = _visible(store)
        for name in ("update", "append events", "release", "finish"):
            with pytest.raises(LeaseLostError):
                OPERATIONS[name](store, at)
        assert _visible(store) == before
