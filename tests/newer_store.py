"""The migrations of a Chorus that is newer than today's: one more adds a table, and a column."""

from __future__ import annotations

import shutil
from pathlib import Path

from alembic.script import ScriptDirectory

from prompts_store.database.migrate import alembic_config
from tests.places import ROOT

HEAD = str(ScriptDirectory.from_config(alembic_config(None)).get_current_head())
NEWEST = HEAD[:4]
"""The number of today's newest migration."""

_MIGRATION = """\
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("of_later", sa.Column("number", sa.BigInteger(), primary_key=True))
    op.add_column("versions", sa.Column("of_later", sa.String(8), server_default="", nullable=False))
"""


def with_migration(folder: Path, revision: str) -> Path:
    """The folder, with today's migrations and that one."""
    shutil.copytree(
        ROOT / "prompts_store" / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "versions" / "9999_later.py").write_text(_MIGRATION.format(revision=revision, head=HEAD))
    return folder
