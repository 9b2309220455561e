"""The audit log, which only grows."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")

# A row goes only when its tenant's head says that it was dropped, which the store's upkeep writes in the same
# transaction. REPLACE would remove a row without asking the trigger for DELETE.
SQLITE = (
    """CREATE TRIGGER audit_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'a row of the audit log is never changed'); END""",
    """CREATE TRIGGER audit_not_replaced BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE tenant = NEW.tenant AND sequence = NEW.sequence)
    BEGIN SELECT RAISE(ABORT, 'a row of the audit log is never changed'); END""",
    """CREATE TRIGGER audit_not_removed BEFORE DELETE ON audit
    WHEN OLD.sequence > coalesce((SELECT dropped FROM audit_heads WHERE tenant = OLD.tenant), 0)
    BEGIN SELECT RAISE(ABORT, 'a row of the audit log goes only with its month'); END""",
    """CREATE TRIGGER audit_heads_forward BEFORE UPDATE ON audit_heads
    WHEN NEW.tenant <> OLD.tenant OR NEW.sequence < OLD.sequence OR NEW.dropped < OLD.dropped
    BEGIN SELECT RAISE(ABORT, 'a head of the audit log never goes back'); END""",
    """CREATE TRIGGER audit_heads_not_replaced BEFORE INSERT ON audit_heads
    WHEN EXISTS (SELECT 1 FROM audit_heads WHERE tenant = NEW.tenant)
    BEGIN SELECT RAISE(ABORT, 'a head of the audit log never goes back'); END""",
    """CREATE TRIGGER audit_heads_not_removed BEFORE DELETE ON audit_heads
    BEGIN SELECT RAISE(ABORT, 'a head of the audit log is never removed'); END""",
)
POSTGRESQL = (
    """CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit log only grows';
    END $$""",
    """CREATE FUNCTION audit_removed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.sequence > coalesce((SELECT dropped FROM audit_heads WHERE tenant = OLD.tenant), 0) THEN
            RAISE EXCEPTION 'a row of the audit log goes only with its month';
        END IF;
        RETURN OLD;
    END $$""",
    """CREATE TRIGGER audit_not_changed BEFORE UPDATE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_refuse()""",
    """CREATE TRIGGER audit_not_removed BEFORE DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_removed()""",
    """CREATE TRIGGER audit_not_emptied BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()""",
    """CREATE TRIGGER audit_heads_forward BEFORE UPDATE ON audit_heads FOR EACH ROW
    WHEN (NEW.tenant <> OLD.tenant OR NEW.sequence < OLD.sequence OR NEW.dropped < OLD.dropped)
    EXECUTE FUNCTION audit_refuse()""",
    """CREATE TRIGGER audit_heads_not_removed BEFORE DELETE ON audit_heads
    FOR EACH ROW EXECUTE FUNCTION audit_refuse()""",
    """CREATE TRIGGER audit_heads_not_emptied BEFORE TRUNCATE ON audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()""",
)


def upgrade() -> None:
    """Empty: what happened before was not noted."""
    op.create_table(
        "audit",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "sequence", name=op.f("pk_audit")),
    )
    op.create_table(
        "audit_heads",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("dropped_hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("0 <= dropped AND dropped <= sequence", name=op.f("ck_audit_heads_dropped")),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_audit_heads")),
    )
    connection = op.get_bind()
    for statement in SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    """Without it, and what it told."""
    for table in ("audit", "audit_heads"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for function in ("audit_refuse", "audit_removed"):
            op.execute(f"DROP FUNCTION {function}()")
