"""Who may read a data folder: its owner. The control is what the umask alone would have left."""

import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.database import privacy
from prompts_store.testing import example_prompt


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def database_modes(folder: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in folder.glob("*.db*")}


PRIVATE = {"chorus.db": 0o600, "chorus.db-shm": 0o600, "chorus.db-wal": 0o600}


def test_a_new_data_folder_and_its_database_are_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "data"
    with closing(PromptStore.open(folder)) as store:
        store.publish("acme", "sst2", *example_prompt(1))
        assert mode(folder) == 0o700
        assert database_modes(folder) == PRIVATE
    assert mode(tmp_path / "above") == 0o755, "the control: what is not ours is made as the umask says"


def test_a_database_elsewhere_is_for_its_owner_too(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with closing(PromptStore.open(tmp_path / "data", database_url=f"sqlite:///{folder / 'own.db'}")) as store:
        store.publish("acme", "sst2", *example_prompt(1))
        assert set(database_modes(folder).values()) == {0o600} and len(database_modes(folder)) == 3
    assert mode(folder) == 0o755


def of_0_1_0(folder: Path) -> None:
    with closing(PromptStore.open(folder)) as store:
        store.publish("acme", "sst2", *example_prompt(1))
    folder.chmod(0o755)
    (folder / "chorus.db").chmod(0o644)


def test_what_0_1_0_left_open_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of_0_1_0(tmp_path / "data")
    (tmp_path / "data" / "compile_cache").mkdir()
    with caplog.at_level(logging.INFO, "chorus.store"), closing(PromptStore.open(tmp_path / "data")) as store:
        assert mode(tmp_path / "data") == 0o700
        store.publish("acme", "sst2", *example_prompt(2))
        assert database_modes(tmp_path / "data") == PRIVATE
    assert caplog.text.count("closed") == 2


def test_a_folder_that_others_use_as_well_is_left_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a data folder of `.`: only the database, which is surely ours, is closed."""
    folder = tmp_path / "project"
    of_0_1_0(folder)
    (folder / "README.md").touch()
    PromptStore.open(folder).close()
    assert (mode(folder), mode(folder / "chorus.db")) == (0o755, 0o600)
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert f"chmod 700 {folder}" in warning


def test_what_somebody_opened_to_a_group_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    of_0_1_0(folder)
    folder.chmod(0o2770)
    (folder / "chorus.db").chmod(0o660)
    PromptStore.open(folder).close()
    assert (mode(folder), mode(folder / "chorus.db"), caplog.text) == (0o2770, 0o660, "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_volume_of_somebody_else_is_used_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process of another user, in the group that may write: it cannot change the folder's mode."""
    with closing(PromptStore.open(tmp_path / "warm")) as store:  # imports what only root may be able to read
        store.publish("acme", "sst2", *example_prompt(1))
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        volume = Path(name)
        os.chown(volume, 12345, 23456)
        volume.chmod(0o2775)
        os.setegid(23456)
        os.seteuid(54321)
        try:
            with closing(PromptStore.open(volume)) as store:
                store.publish("acme", "sst2", *example_prompt(1))
        finally:
            os.seteuid(0)
            os.setegid(0)
        assert mode(volume) == 0o2775 and set(database_modes(volume).values()) <= {0o600}
        (warning,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
        assert f"chmod 700 {volume}" in warning


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_what_root_adopts_the_server_can_read(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        for name in ("blobs", "files"):
            os.chown(tmp_path / name / "incoming", 12345, 23456)
            (tmp_path / name / "store-id").write_text("another")
        store.adopt()
    for name in ("blobs", "files"):
        found = (tmp_path / name / "store-id").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o600)


def test_a_disk_without_modes_is_used_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_0_1_0(tmp_path / "data")

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    PromptStore.open(tmp_path / "data").close()
    assert [each.levelno for each in caplog.records if each.levelno > logging.INFO] == 2 * [logging.WARNING]


def test_a_file_in_place_of_the_folder_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch(0o644)
    privacy.make_private_folder(file)
    assert mode(file) == 0o644
