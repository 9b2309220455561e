"""Row-level security in PostgreSQL: a transaction sees the rows of the tenant that `chorus.tenant` names.

A later migration that makes a table fences it too, in the same way; a test finds one that does not. SQLite
has nothing of the kind.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Empty is nobody: the whole store's audit log has the tenant ''.
WHOSE = "nullif(current_setting('chorus.tenant', true), '')"
# Only the tables' owner and chorus_upkeep are believed when they say `*`. Asked once in a statement, and not
# at all in a tenant's.
EVERY_TENANT = "(current_setting('chorus.tenant', true) = '*' AND (SELECT chorus_every_tenant()))"
FUNCTION = """CREATE FUNCTION chorus_every_tenant() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT current_setting('chorus.tenant', true) = '*' AND EXISTS (
        SELECT FROM pg_roles, pg_class
        WHERE pg_class.oid = 'tasks'::regclass
        AND (rolname = 'chorus_upkeep' OR pg_roles.oid = relowner)
        AND pg_has_role(pg_roles.oid, 'USAGE')
    )
$$"""

OWNED = (
    "tasks", "task_labels", "ensembles", "files", "jobs", "keys", "changes", "audit", "audit_heads", "usage",
    "usage_hours", "stored_use", "training_steps", "grants", "budget_uses",
    "budget_leases",
)  # fmt: skip
# A child is seen by whoever sees its owner, whose own policy says so: the column, the owner and its key.
CHILDREN = {
    "versions": ("task_id", "tasks", "id"),
    "aliases": ("owner_id", "tasks", "id"),
    "alias_moves": ("owner_id", "tasks", "id"),
    "ensemble_versions": ("ensemble_id", "ensembles", "id"),
    "ensemble_aliases": ("owner_id", "ensembles", "id"),
    "ensemble_alias_moves": ("owner_id", "ensembles", "id"),
    "ensemble_members": ("ensemble_version_id", "ensemble_versions", "id"),
    "job_files": ("job_number", "jobs", "number"),
    "job_events": ("job_number", "jobs", "number"),
}
POLICIES = {"tenants": f"name = {WHOSE}"} | dict.fromkeys(OWNED, f"tenant = {WHOSE}")
POLICIES |= {
    table: f"EXISTS (SELECT FROM {owner} WHERE {owner}.{key} = {table}.{column})"
    for table, (column, owner, key) in CHILDREN.items()
}
# A grant is also seen, and never changed, by whom it is given to.
GRANTED = f"{WHOSE} IS NOT NULL AND grantee IN ({WHOSE}, '*')"


def upgrade() -> None:
    """The owner is held too, as long as it does not take the fence down."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(FUNCTION)
    for table, condition in POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({EVERY_TENANT} OR {condition})")
    op.execute(f"CREATE POLICY grantee ON grants FOR SELECT USING ({GRANTED})")


def downgrade() -> None:
    """Rows are as they were."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("DROP POLICY grantee ON grants")
    for table in POLICIES:
        op.execute(f"DROP POLICY tenant ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP FUNCTION chorus_every_tenant()")
