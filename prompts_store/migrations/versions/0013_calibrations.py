"""What makes probabilities of labels mean what they say: numbered records beside a version."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WHO = "current_setting('chorus.tenant', true) = '*' AND (SELECT chorus_every_tenant())"
OWNER = "EXISTS (SELECT FROM versions WHERE versions.id = calibrations.version_id)"


def upgrade() -> None:
    """Empty: nothing was calibrated before."""
    op.create_table(
        "calibrations",
        sa.Column("version_id", KEY, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("matrix_dtype", sa.String(length=32), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=False),
        sa.Column("prior", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_calibrations_number")),
        sa.CheckConstraint(
            "temperature >= 0.05 AND temperature <= 20", name=op.f("ck_calibrations_temperature")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_calibrations_version_id")),
        sa.PrimaryKeyConstraint("version_id", "number", name=op.f("pk_calibrations")),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE calibrations ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE calibrations FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON calibrations USING (({WHO}) OR {OWNER})")


def downgrade() -> None:
    """Without it, probabilities are the softmax of the log probabilities."""
    op.drop_table("calibrations")
