"""Runs the migrations on the connection and in the transaction that `prompts_store.database.migrate` hands
over."""

from alembic import context

from prompts_store.database import (
    audit_tables,  # noqa: F401 - their tables join the metadata
    budget_tables,  # noqa: F401
    job_tables,  # noqa: F401
    tenant_tables,  # noqa: F401
    usage_tables,  # noqa: F401
)
from prompts_store.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # PostgreSQL's DDL is transactional; SQLite's is too, once the driver leaves transactions alone: see
    # sqlite.
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
