"""Bring a database to the tables that this code expects."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from prompts_store.errors import StoreError

_FOLDER = Path(__file__).parents[1] / "migrations"


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the caller's transaction: all of them or none.

    Raises:
        StoreError: a newer Chorus made the database.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    if current == _newest():
        return
    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise StoreError(
            "The database was made by a newer version of Chorus; upgrade Chorus, or point it at another "
            "data folder."
        )
    command.upgrade(config, "head")


def is_empty(connection: Connection) -> bool:
    """Whether no migration was ever run here."""
    return MigrationContext.configure(connection).get_current_revision() is None


@cache
def _newest() -> str | None:
    """The last migration of this code. Cached, because Alembic compiles every migration to find it."""
    return ScriptDirectory.from_config(alembic_config(None)).get_current_head()


def alembic_config(connection: Connection | None) -> Config:
    """Alembic's configuration, without a file. `env.py` takes the connection from it."""
    config = Config(attributes={"connection": connection})
    # ConfigParser takes a percent sign for the start of a substitution.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
