"""What requests that may come again have made, behind the fence of 0012."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
DIGEST = sa.String(length=64)
WHOSE = "nullif(current_setting('chorus.tenant', true), '')"
EVERY_TENANT = "(current_setting('chorus.tenant', true) = '*' AND (SELECT chorus_every_tenant()))"


def upgrade() -> None:
    """Empty: nothing was remembered before."""
    op.create_table(
        "creations",
        sa.Column("number", KEY, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("name", DIGEST, nullable=False),
        sa.Column("said", DIGEST, nullable=False),
        sa.Column("made", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_creations")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_creations_tenant_name")),
    )
    op.create_index("ix_creations_expires_at", "creations", ["expires_at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE creations ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE creations FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON creations USING ({EVERY_TENANT} OR tenant = {WHOSE})")


def downgrade() -> None:
    """Without it, what comes again is made again."""
    op.drop_table("creations")
