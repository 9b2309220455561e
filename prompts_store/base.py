"""What every part of the store is built on: its fields, and checks of the names that callers send."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from prompts_store import checks
from prompts_store.blobs import Blobs, LocalContents
from prompts_store.blobs.leases import Leases
from prompts_store.database import Database
from prompts_store.names import check_name


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


class StoreBase:
    """The fields of a store. Only read leases are kept between calls, so nothing can become stale.

    Args:
        database: the tables, after migration.
        blobs: where values are kept.
        clock: gives the current time, with a time zone.
        contents: where the bytes of data files are kept. Without it they are in a temporary folder, which is
            made with the first file and removed with the store.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Callable[[], datetime] = utc_now,
        *,
        contents: LocalContents | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._leases = Leases()
        self._kept_contents = contents
        self._making = threading.Lock()
        self._remove_temporary: Callable[[], object] = lambda: None

    @property
    def _contents(self) -> LocalContents:
        with self._making:
            if self._kept_contents is None:
                folder = Path(tempfile.mkdtemp(prefix="chorus-files-"))
                self._remove_temporary = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                self._kept_contents = LocalContents(folder)
            return self._kept_contents


def check_owner(tenant: str, name: str, actor: str = "", *, field: str = "task") -> None:
    """Raise InvalidError unless these can name a task or an ensemble, and `actor` can name who changes it."""
    check_name(tenant, field="tenant")
    check_name(name, field=field)
    checks.check_text(actor, field="by")
