"""A fault at every step of every operation that writes: the state is exactly the old one or the new one.

The sweep goes on, one step further each time, until the operation comes through: see store_faults.
"""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.blobs import LocalBlobs
from prompts_store.errors import StoreError
from prompts_store.records import EnsembleMember
from prompts_store.testing import Died, FakeClock, Fault, FaultyFiles, example_file, example_prompt
from tests.faults.store_faults import MAX_STEPS, ShortWrites, faulty_store, sweep


def _prepare(store: PromptStore) -> None:
    for seed in (1, 2, 3):
        store.publish("acme", "sst2", *example_prompt(seed, labels=("yes", "no")))
    store.set_alias("acme", "sst2", "live", 2)
    store.publish("acme", "other", *example_prompt(1))
    store.publish("acme", "dead", *example_prompt(9))
    store.delete_task("acme", "dead")


def _visible(store: PromptStore) -> object:
    """Everything that a caller can see, values included."""
    tasks = store.list_tasks("acme").items
    versions = [version for task in tasks for version in store.list_versions("acme", task.name).items]
    return (
        tasks,
        versions,
        [store.alias_history("acme", task.name) for task in tasks],
        [store.values(version.manifest.digest).tobytes() for version in versions],
        store.list_ensembles("acme").items,
        [task.name for task in store.list_tasks("acme", label="yes").items],
    )


OPERATIONS: dict[str, Callable[[PromptStore], object]] = {
    "publish a first version": lambda store: store.publish(
        "acme", "new", *example_prompt(5, labels=("yes",))
    ),
    "publish another version": lambda store: store.publish("acme", "sst2", *example_prompt(5)),
    "publish known content": lambda store: store.publish("acme", "new", *example_prompt(2)),
    "publish again after a tombstone": lambda store: store.publish("acme", "dead", *example_prompt(9)),
    "set an alias": lambda store: store.set_alias("acme", "sst2", "live", 3),
    "roll back": lambda store: store.rollback("acme", "sst2"),
    "remove an alias": lambda store: store.remove_alias("acme", "sst2", "live"),
    "delete a version": lambda store: store.delete_version("acme", "sst2", 3),
    "delete a task": lambda store: store.delete_task("acme", "sst2"),
    "publish an ensemble": lambda store: store.publish_ensemble(
        "acme", "team", [EnsembleMember("acme", "sst2", 2)]
    ),
}


@pytest.mark.parametrize("fault", ["die", "EIO", "ENOSPC"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_step_leaves_the_old_state_or_the_new(tmp_path: Path, name: str, fault: Fault) -> None:
    clock = FakeClock()
    with (
        closing(PromptStore.open(tmp_path, clock=clock)) as observer,
        closing(PromptStore.open(tmp_path / "twin", clock=clock)) as twin,
    ):
        _prepare(observer)
        _prepare(twin)
        old = _visible(observer)
        OPERATIONS[name](twin)
        new = _visible(twin)
        assert new != old
        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            steps = sweep(
                store,
                files,
                OPERATIONS[name],
                fault,
                look=lambda: _checked(observer),
                old=old,
                new=new,
                again=lambda: _forget_leftovers(observer),
            )
        assert steps > 5, "nothing was swept"
        # What the deaths left behind goes with the next collection.
        clock.advance(1)
        observer.collect(grace_seconds=0)
        report = observer.check()
        assert report.clean and (report.orphans, report.temporary_files) == (0, 0)


def _checked(observer: PromptStore) -> object:
    assert observer.check().clean
    return _visible(observer)


def _forget_leftovers(observer: PromptStore) -> None:
    """Every step starts from the same disk: without the temporary file and the orphan of the one before."""
    observer._blobs.sweep(datetime(2100, 1, 1, tzinfo=UTC))
    observer._blobs.remove(example_prompt(5)[1].digest)


@pytest.mark.parametrize("fault", ["die", "EIO", "ENOSPC"])
def test_a_collection_that_fails_at_any_step_takes_nothing_that_is_named(
    tmp_path: Path, fault: Fault
) -> None:
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        _prepare(observer)
        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            for step in range(1, MAX_STEPS):
                _make_garbage(observer, tmp_path, step)
                clock.advance(1)
                before = _visible(observer)
                files.arm(fault, step)
                try:
                    report = store.collect(grace_seconds=0)
                except (Died, StoreError):
                    report = None
                files.arm(fault, 0)
                assert _visible(observer) == before
                assert observer.check().clean
                if report is not None:
                    break
                # Each step starts with the same garbage: without what this one has left.
                observer.collect(grace_seconds=0)
        assert report is not None and step > 15, "nothing was swept"
        after = observer.check()
        assert (after.orphans, after.temporary_files) == (0, 0)
        assert after.blobs == 3


def _make_garbage(store: PromptStore, folder: Path, step: int) -> None:
    """A tombstoned version, a tombstoned data file, an orphan and temporary files."""
    number = store.publish("acme", "sst2", *example_prompt(1000 + step)).version.number
    store.delete_version("acme", "sst2", number)
    store._blobs.put(f"{step:064x}", b"orphan", now=store._clock())
    milliseconds = int(store._clock().timestamp() * 1000)
    for kind in ("blobs", "files"):
        (folder / kind / "incoming" / f"{milliseconds}-{step:016x}").write_bytes(b"half")
    store.delete_file("acme", example_file(store, f"rows {step}".encode()).id)


def test_a_short_write_at_any_step_is_written_on(tmp_path: Path) -> None:
    files = ShortWrites()
    with closing(PromptStore.open(tmp_path, files=files)) as store:
        for step in range(1, 15):
            values, manifest = example_prompt(step)
            files.arm("short", step)
            store.publish("acme", "sst2", values, manifest)
            assert store.values(manifest.digest).tobytes() == values.tobytes()
        assert files.shorts >= 1
        assert store.check().clean


def test_control_a_row_without_its_blob_is_noticed(tmp_path: Path) -> None:
    """A store that commits first and stores the blob afterwards leaves a third state, and it is seen."""

    class RowFirst(LocalBlobs):
        def put(self, digest: str, content: bytes, *, now: datetime) -> None:
            self.late = (digest, content, now)

        def has(self, digest: str) -> bool:
            return True

    clock, files = FakeClock(), FaultyFiles()
    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        blobs = RowFirst(tmp_path / "blobs", files=files)
        store = PromptStore(observer._database, blobs, clock)
        store.publish("acme", "sst2", *example_prompt(1))
        files.arm("die", 1)
        with pytest.raises(Died):
            LocalBlobs.put(blobs, *blobs.late[:2], now=blobs.late[2])
        assert [problem.kind for problem in observer.check().problems] == ["missing_blob"]
        with pytest.raises(StoreError):
            _visible(observer)
