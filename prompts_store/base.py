"""What every part of the store is built on: its fields, and checks of the names that callers send."""

from __future__ import annotations

import copy
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from prompts_store import checks
from prompts_store.blobs import Blobs, Contents, LocalContents
from prompts_store.blobs.leases import Leases
from prompts_store.database import Database
from prompts_store.names import check_name
from prompts_store.records import Actor, Creation

MAX_ADDRESS_CHARACTERS = 64


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
        data_dir: of this machine; None if it has none.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Callable[[], datetime] = utc_now,
        *,
        contents: Contents | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self._database = database
        self._data_dir = data_dir
        self._blobs = blobs
        self._clock = clock
        self._leases = Leases()
        self._place = _Place(contents)

    def acting_for(self, actor: Actor) -> Self:
        """The same store, whose changes the audit log gives to this actor. It is made in microseconds, and
        closed with the store.

        Raises:
            InvalidError: names the field at fault.
        """
        checks.check_text(actor.name, field="actor")
        checks.check_text(actor.address, field="address", limit=MAX_ADDRESS_CHARACTERS)
        checks.check_text(actor.request_id, field="request_id")
        view = copy.copy(self)
        view._database = self._database.acting_for(actor)
        return view

    def creating(self, creation: Creation) -> Self:
        """The same store, for one request to create one thing, which may come again: if it did, whatever
        would create the thing once more raises `creations.MadeBefore`.

        It is remembered with what it made, in one transaction: for `creations.KEYED` where it has a key, else
        for `creations.UNKEYED`.
        """
        view = copy.copy(self)
        view._database = self._database.creating(creation)
        return view

    @property
    def _contents(self) -> Contents:
        return self._place.contents()


class _Place:
    """Where the bytes of data files are: a temporary folder, made with the first of them, if no other is
    given."""

    def __init__(self, contents: Contents | None) -> None:
        self._contents = contents
        self._making = threading.Lock()
        self._remove: Callable[[], object] = lambda: None

    def contents(self) -> Contents:
        with self._making:
            if self._contents is None:
                folder = Path(tempfile.mkdtemp(prefix="chorus-files-"))
                self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                self._contents = LocalContents(folder)
            return self._contents

    def close(self) -> None:
        """Remove the folder if it is temporary."""
        self._remove()


def check_owner(tenant: str, name: str, actor: str = "", *, field: str = "task") -> None:
    """Raise InvalidError unless these can name a task or an ensemble, and `actor` can name who changes it."""
    check_name(tenant, field="tenant")
    check_name(name, field=field)
    checks.check_text(actor, field="by")
