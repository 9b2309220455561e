"""Statements behind the store's back, as somebody runs them who may do anything with the database."""

import psycopg

from prompts_store import PromptStore
from tests.postgres_server import as_superuser

_TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'audit%'"


def as_owner(store: PromptStore, *statements: str, triggers: bool = False) -> None:
    """Run statements on a raw connection; without `triggers`, those that keep the log are out of the way."""
    engine, embedded = store._database.engine, store._database.embedded
    # On a server the store's own login may do nothing of the kind.
    raw = engine.raw_connection() if embedded else psycopg.connect(as_superuser(engine.url))
    try:
        cursor = raw.cursor()
        if not triggers and embedded:
            for (name,) in cursor.execute(_TRIGGERS).fetchall():
                cursor.execute(f"DROP TRIGGER {name}")
        elif not triggers:
            cursor.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            cursor.execute(statement)
        raw.commit()
    finally:
        raw.close()
