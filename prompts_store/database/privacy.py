"""The data folder is for the user that Chorus runs as: the folder 0700, the database 0600.

What is made here is made so. What an older Chorus made with the umask's bits is closed when it is opened,
where that is sure to be ours; elsewhere the log says what to do. Bits of the group alone are left: the usual
umask leaves some to others as well, so somebody chose them.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

LOG = logging.getLogger("chorus.store")

# What a data folder has in it: of the store, the server, its tuning jobs and its container.
_OURS = frozenset({"open.lock", "blobs", "files", "compile_cache", "tuning", "cache", "lost+found"})


def make_private_folder(folder: Path) -> None:
    """Make the data folder, or close one that nothing but Chorus uses. Never raises where it is there.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir() or not _open_to_others(folder):
            return
        with suppress(OSError):
            names = [path.name for path in folder.iterdir()]
            if all(name in _OURS or name.startswith("chorus.db") for name in names):
                _close(folder, 0o700)
                return
        _advise(folder, 0o700)


def make_private_database(file: Path) -> None:
    """Make an empty database file, from which SQLite's others take their mode; or close one that is there."""
    with suppress(OSError):  # SQLite says what is wrong with the place
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for each in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        if _open_to_others(each):
            _close(each, 0o600)


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IRWXO)
    except OSError:
        return False


def _close(path: Path, mode: int) -> None:
    try:
        path.chmod(mode)
    except OSError:  # somebody else's, or a disk without modes
        _advise(path, mode)
    else:
        LOG.info("closed %s to other users: its mode is %o now", path, mode)


def _advise(path: Path, mode: int) -> None:
    LOG.warning(
        "other users of this machine can get at %s; where they should not, run: chmod %o %s", path, mode, path
    )
