"""One id, in the database and in the folders of its blobs and data files.

The collector removes what the database does not name. With a database that was lost and created again, or
beside another database's folder, that would be everything. So it removes nothing unless all have the same id.

    the database has no id            it gets one, and so do the folders that fit: see `FolderPairing.fits`
    a folder without one is empty     it gets the database's, where that misses nothing there
    anything else                     an operator says which is right: `adopt`

The folders are written first, the database last. A crash in between leaves a database without an id, and the
next process that opens the store continues from there. A folder that did not fit never gets an id by itself,
because later uploads would make it look as if it fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection, insert, select

from prompts_store.audit import chain
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.blobs import Blobs, Contents, Place
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.database.tables import store_identity
from prompts_store.errors import ConflictError
from prompts_store.text import shown
from prompts_store.upkeep.holdings import Holding, blob_holdings, file_holdings, needed_blobs, needed_files


@dataclass(frozen=True, slots=True)
class FolderPairing:
    """A folder, compared with the database.

    Attributes:
        folder: `blobs` or `files`.
        id: the folder's id; None if it has none.
        held: how many blobs or contents of data files it has.
        known: how many of these have a row in the database, even of something deleted.
        needed: how many of them the database's live versions or files name.
        present: how many of the needed ones the folder has.
    """

    folder: str
    id: str | None
    held: int
    known: int
    needed: int
    present: int

    @property
    def fits(self) -> bool:
        """Whether the two belong together, judged by what they know of each other: the database knows at
        least half of what is there, and at least half of what it needs is there. An empty one fits an empty
        one."""
        return 2 * self.known >= self.held and 2 * self.present >= self.needed


@dataclass(frozen=True, slots=True)
class Pairing:
    """Whether the database and its folders belong together.

    Attributes:
        id: the database's id; None before it was given one.
    """

    id: str | None
    folders: tuple[FolderPairing, ...]

    @property
    def one(self) -> bool:
        """Whether all have the same id."""
        return self.id is not None and all(folder.id == self.id for folder in self.folders)


@dataclass(frozen=True, slots=True)
class _Folder:
    place: Place
    holdings: Callable[[], Iterator[Holding]]
    needed: Callable[[Connection], int]


class Identity:
    """The ids of a store.

    Args:
        clock: gives the current time.
    """

    def __init__(
        self, database: Database, blobs: Blobs, contents: Contents, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._clock = clock
        self._folders = {
            "blobs": _Folder(blobs, lambda: blob_holdings(database, blobs), needed_blobs),
            "files": _Folder(contents, lambda: file_holdings(database, contents), needed_files),
        }

    def settle(self) -> None:
        """Give an id to whatever has none, if that is safe.

        Raises:
            StoreError: the disk or the database failed; the next process continues.
        """
        with self._database.read(EVERY_TENANT) as connection:
            ours = database_id(connection)
            empty = self._empty_ones(connection) if ours is not None else set()
        if ours is None:
            # Done before taking the lock, so that writers do not wait while folders are listed.
            fitting = {name for name in self._folders if self._look(name).fits}
            with self._database.write(EVERY_TENANT) as connection:
                if database_id(connection) is None:
                    self._begin(connection, fitting)
        elif empty:
            with self._database.write(EVERY_TENANT) as connection:
                for name in empty & self._empty_ones(connection):
                    self._folders[name].place.identify(ours, now=self._clock(), instead_of=None)

    def pairing(self) -> Pairing:
        """The ids, and the contents of the folders compared with what the database knows."""
        with self._database.read(EVERY_TENANT) as connection:
            ours = database_id(connection)
        return Pairing(ours, tuple(self._look(name) for name in self._folders))

    def adopt(self) -> None:
        """Give the folders the database's id, whatever ids they have.

        Raises:
            ConflictError: `other_store`: a folder was given another id meanwhile.
            StoreError: the disk or the database failed; adopting again continues.
        """
        self.settle()
        with self._database.write(EVERY_TENANT) as connection:
            ours = database_id(connection)
            if ours is None:
                raise RuntimeError("a database that was settled has an id")
            now, before = self._clock(), self._carried()
            # Also where they have it already: an adoption may have died between the folders and its commit.
            after = dict.fromkeys(before, ours)
            chain.append(connection, "store.adopt", OF_THE_STORE, now=now, before=before, after=after)
            for name, carried in before.items():
                place = self._folders[name].place
                if carried != ours and not place.identify(ours, now=now, instead_of=carried):
                    message = f"Another store gave {name} its id meanwhile; look which is right."
                    raise ConflictError(message, code="other_store")

    def require(self, connection: Connection) -> None:
        """Raise ConflictError `other_store` unless all have the same id."""
        if refusal := self.refusal(connection):
            raise ConflictError(refusal, code="other_store")

    def refusal(self, connection: Connection) -> str | None:
        """Why nothing is removed, and what to do; None if all have the same id."""
        mismatch = self.mismatch(connection)
        return mismatch and (
            f"{mismatch} They may belong to different stores, so nothing is removed. Start Chorus with the "
            "data folder and the database that belong together; if this is the right database, run `chorus "
            "store adopt`."
        )

    def mismatch(self, connection: Connection) -> str | None:
        """The different ids, in words; None if there is only one."""
        ours = database_id(connection)
        other = {name: carried for name, carried in self._carried().items() if carried != ours}
        if ours is not None and not other.keys() - self._empty_ones(connection):
            return None
        names: dict[str, list[str]] = {}
        for name, carried in other.items():
            names.setdefault(_worded(carried), []).append(name)
        folders = "".join(f", {' and '.join(some)} {one}" for one, some in names.items())
        return f"The database has {_worded(ours)}{folders and f'; of its folders{folders}'}."

    def _carried(self) -> Mapping[str, str | None]:
        return {name: folder.place.identity() for name, folder in self._folders.items()}

    def _empty_ones(self, connection: Connection) -> set[str]:
        """Folders without an id that have nothing and lack nothing."""
        return {
            name
            for name, carried in self._carried().items()
            if carried is None
            and not self._folders[name].needed(connection)
            and next(self._folders[name].place.entries(), None) is None
        }

    def _begin(self, connection: Connection, fitting: set[str]) -> None:
        """The first id of a database: that of its folders if they agree and fit, else a new one."""
        carried = self._carried()
        theirs = {one for one in carried.values() if one is not None}
        agreed = len(theirs) == 1 and fitting == carried.keys()
        chosen = theirs.pop() if agreed else str(uuid4())
        for name in fitting:
            # Written also to a folder that has it: the process that wrote it may have died before it was
            # safely on the disk.
            if carried[name] in (None, chosen):
                # Another database's process may be the first in a bucket: then its id stays, and nothing is
                # collected from here.
                self._folders[name].place.identify(chosen, now=self._clock(), instead_of=carried[name])
        connection.execute(insert(store_identity).values(number=1, id=chosen, created_at=self._clock()))

    def _look(self, name: str) -> FolderPairing:
        folder, held, known, present = self._folders[name], 0, 0, 0
        for holding in folder.holdings():
            held, known, present = held + 1, known + holding.known, present + holding.needed
        with self._database.read(EVERY_TENANT) as connection:
            needed = folder.needed(connection)
        return FolderPairing(name, folder.place.identity(), held, known, needed, present)


def database_id(connection: Connection) -> str | None:
    """The database's id; None before it was given one."""
    return connection.execute(select(store_identity.c.id)).scalar_one_or_none()


def _worded(identity: str | None) -> str:
    return "no id" if identity is None else f"the id {shown(identity)}"
