"""Bring a database to the tables that this code expects.

The newest migration of a database says in its name for which older code its tables still do:
`0022_serves_0020` is for all whose own newest migration is 0020 or a later one. Such code comes up on them
and changes nothing.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from prompts_store.errors import StoreError

LOG = logging.getLogger("chorus.store")

_FOLDER = Path(__file__).parents[1] / "migrations"
_SERVES = re.compile(r"[0-9]{4}_serves_([0-9]{4})", re.ASCII)


def upgrade(connection: Connection) -> str | None:
    """Run the missing migrations inside the caller's transaction: all of them or none.

    Returns:
        The last migration of the tables, if it is a newer Chorus's and they still serve this code; else None.

    Raises:
        StoreError: a newer Chorus made the database, and its tables no longer serve this code.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    if current == newest():
        return None
    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        if serves(current, newest()):
            LOG.warning("the tables are those of a newer Chorus (%s), which still serve this one", current)
            return current
        raise StoreError(
            f"The database was made by a newer version of Chorus: its tables are at migration "
            f"{current[:40]}, this code knows those up to {newest()}, and they do not serve it. Upgrade "
            "Chorus; or give this one another data folder or database, such as one restored from a backup of "
            "its own version."
        )
    command.upgrade(config, "head")
    return None


def serves(tables: str, newest: str) -> bool:
    """Whether code with this newest migration may work on the tables that a migration unknown to it made."""
    said = _SERVES.fullmatch(tables)
    return said is not None and said[1] <= newest[:4] < tables[:4]


def is_empty(connection: Connection) -> bool:
    """Whether no migration was ever run here."""
    return MigrationContext.configure(connection).get_current_revision() is None


@cache
def newest() -> str:
    """The last migration of this code. Cached, because Alembic compiles every migration to find it."""
    return str(ScriptDirectory.from_config(alembic_config(None)).get_current_head())


def alembic_config(connection: Connection | None) -> Config:
    """Alembic's configuration, without a file. `env.py` takes the connection from it."""
    config = Config(attributes={"connection": connection})
    # ConfigParser takes a percent sign for the start of a substitution.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
