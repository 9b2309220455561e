"""Who is signed in to the console, behind the fence of 0012."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
DIGEST = sa.String(length=64)
WHOSE = "nullif(current_setting('chorus.tenant', true), '')"
EVERY_TENANT = "(current_setting('chorus.tenant', true) = '*' AND (SELECT chorus_every_tenant()))"


def upgrade() -> None:
    """Empty: there was no console."""
    op.create_table(
        "sessions",
        sa.Column("number", KEY, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("public", sa.String(length=8), nullable=True),
        sa.Column("seal", DIGEST, nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(public IS NULL) <> (seal IS NULL)", name=op.f("ck_sessions_whose")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_sessions")),
        sa.UniqueConstraint("digest", name=op.f("uq_sessions_digest")),
    )
    op.create_index("ix_sessions_tenant", "sessions", ["tenant", "public"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE sessions ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE sessions FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON sessions USING ({EVERY_TENANT} OR tenant = {WHOSE})")


def downgrade() -> None:
    """Everybody signs in again."""
    op.drop_table("sessions")
