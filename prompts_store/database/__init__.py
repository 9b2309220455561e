"""The tables, and the two kinds of database that hold them: read snapshots, exclusive writes, migrations."""

from prompts_store.database.database import EVERY_TENANT, Database, scoped

__all__ = ["EVERY_TENANT", "Database", "scoped"]
