"""A fault at every step of writing the ids: whoever opens the store next finds it whole, or makes it so."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command

from prompts_store import PromptStore
from prompts_store.database import Database, database
from prompts_store.database.migrate import alembic_config
from prompts_store.errors import ConflictError
from prompts_store.testing import FakeClock, Fault, FaultyFiles, example_file, example_prompt
from prompts_store.upkeep.identity import FolderPairing
from tests.faults.store_faults import MAX_STEPS, DyingDisk, FewScans, attempt, faulty_store

Prepare = Callable[[Path], None]


def _fresh(folder: Path) -> None:
    folder.mkdir()
    Database.open(folder, None).close()


def _of_0_1_0(folder: Path) -> None:
    """A folder of the release before, migrated: blobs, data files and rows, and no id."""
    with pytest.MonkeyPatch.context() as older:
        older.setattr(database, "upgrade", lambda found: command.upgrade(alembic_config(found), "0003"))
        with closing(PromptStore.open(folder)) as store:
            store.publish("acme", "sst2", *example_prompt(1))
            example_file(store, b"rows")
    Database.open(folder, None).close()


def _settle(store: PromptStore) -> object:
    return store._identity.settle()


def _works(folder: Path, clock: FakeClock) -> bool:
    """Whether what the next process opens is one store, which takes uploads and can be collected."""
    with closing(PromptStore.open(folder, clock=clock)) as store:
        store.publish("acme", "new", *example_prompt(2))
        example_file(store, b"new rows")
        clock.advance(1)
        try:
            report = store.collect(grace_seconds=0)
        except ConflictError:
            return False
        assert (report.blobs, report.orphans, report.files) == (0, 0, 0)
        assert store.check().clean
        return True


def _outcomes(
    folder: Path, prepare: Prepare, fault: Fault, make_files: Callable[[], FaultyFiles]
) -> list[bool]:
    """What became of a store whose ids failed to be written at step 1, 2, ..., until none failed."""
    prepare(folder / "prepared")
    outcomes = []
    for step in range(1, MAX_STEPS):
        place, clock = folder / f"{step}", FakeClock()
        shutil.copytree(folder / "prepared", place)
        files = make_files()
        store, _ = faulty_store(place, clock, files)
        with closing(store):
            finished = attempt(store, files, fault, step, _settle)
        if isinstance(files, DyingDisk):
            files.cut()
        outcomes.append(_works(place, clock))
        if finished:
            assert step > 12, "nothing was swept"
            return outcomes
    pytest.fail(f"not finished after {MAX_STEPS} steps")


@pytest.mark.parametrize("prepare", [_fresh, _of_0_1_0])
def test_a_death_and_a_power_cut_at_every_step_leave_one_store(tmp_path: Path, prepare: Prepare) -> None:
    assert all(_outcomes(tmp_path, prepare, "die", DyingDisk))


def test_an_error_at_every_step_leaves_one_store(tmp_path: Path) -> None:
    assert all(_outcomes(tmp_path, _of_0_1_0, "EIO", FewScans))


def test_control_an_id_that_was_not_synced_is_missed(tmp_path: Path) -> None:
    lies = frozenset({"sync_folder"})
    assert not all(_outcomes(tmp_path, _of_0_1_0, "die", lambda: DyingDisk(lies)))


def test_control_who_trusts_no_folder_with_half_an_id_is_locked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that are given only where no folder has one: after a crash in between, nobody collects again."""

    class Suspicious(FolderPairing):
        fits = property(lambda self: self.id is None)  # type: ignore[assignment]

    monkeypatch.setattr("prompts_store.upkeep.identity.FolderPairing", Suspicious)
    outcomes = _outcomes(tmp_path, _fresh, "die", FewScans)
    assert outcomes[0] and outcomes[-1] and not all(outcomes)


@pytest.mark.parametrize("fault", ["die", "EIO"])
def test_an_adoption_that_fails_at_any_step_can_be_made_again(tmp_path: Path, fault: Fault) -> None:
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path, clock=clock)) as store:
        store.publish("acme", "sst2", *example_prompt(1))
    for file in tmp_path.glob("chorus.db*"):
        file.unlink()
    clock.advance(1)
    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            for step in range(1, MAX_STEPS):
                for kind in ("blobs", "files"):
                    (tmp_path / kind / "store-id").write_text("another")
                finished = attempt(store, files, fault, step, PromptStore.adopt)
                if not observer.pairing().one:
                    with pytest.raises(ConflictError):
                        observer.collect(grace_seconds=0, allow_mass_removal=True)
                    observer.adopt()
                assert observer.pairing().one and observer.check().orphans == 1
                if finished:
                    assert step > 12, "nothing was swept"
                    return
    pytest.fail(f"not finished after {MAX_STEPS} steps")
