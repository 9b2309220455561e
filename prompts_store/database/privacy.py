"""The data folder belongs to the user that Chorus runs as: the folder gets mode 0700, the database 0600.

New files and folders are created with these modes. What an older Chorus created with the umask's bits is
closed when it is opened, if it is surely ours; if not, the log says what to do. Bits for the group alone are
left: the usual umask leaves some for others too, so somebody chose them.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

LOG = logging.getLogger("chorus.store")

# The names in a data folder: those of the store, the server, its jobs and its container.
_OURS = frozenset(
    {
        "open.lock",
        "blobs",
        "files",
        "usage",
        "compile_cache",
        "tuning",
        "jobs",
        "copies",
        "backups",
        "cache",
        "lost+found",
    }
)


def make_private_folder(folder: Path) -> None:
    """Create the data folder, or close one that only Chorus uses. If it exists, this never raises.

    Raises:
        OSError: it cannot be created.
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
    """Create an empty database file, whose mode SQLite's other files take; or close an existing one."""
    with suppress(OSError):  # SQLite will say what is wrong with the place
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
    except OSError:  # it is somebody else's, or the disk has no modes
        _advise(path, mode)
    else:
        LOG.info("closed %s to other users; its mode is now %o", path, mode)


def _advise(path: Path, mode: int) -> None:
    LOG.warning(
        "other users of this machine can open %s; to prevent that, run: chmod %o %s", path, mode, path
    )
