"""The first tables: tasks, versions, aliases and their moves, ensembles, blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types change.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
LABEL = sa.String(length=256).with_variant(sa.String(length=256, collation="C"), "postgresql")
DIGEST = sa.String(length=64)
ALIVE = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    """Create every table, referenced tables first."""
    _create_blobs()
    _create_ensembles()
    _create_tasks()
    _create_alias_moves()
    _create_ensemble_alias_moves()
    _create_ensemble_versions()
    _create_task_labels()
    _create_versions()
    _create_aliases()
    _create_ensemble_aliases()
    _create_ensemble_members()


def downgrade() -> None:
    """Drop every table; their indices go with them."""
    for table in (
        "ensemble_members",
        "ensemble_aliases",
        "aliases",
        "versions",
        "task_labels",
        "ensemble_versions",
        "ensemble_alias_moves",
        "alias_moves",
        "tasks",
        "ensembles",
        "blobs",
    ):
        op.drop_table(table)


def _create_blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reference_count", sa.Integer(), nullable=False),
        sa.Column("unreferenced_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(reference_count = 0) = (unreferenced_at IS NOT NULL)", name=op.f("ck_blobs_unreferenced")
        ),
        sa.CheckConstraint("reference_count >= 0", name=op.f("ck_blobs_count")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_index("ix_blobs_unreferenced_at", "blobs", ["unreferenced_at"], unique=False)


def _create_ensembles() -> None:
    op.create_table(
        "ensembles",
        sa.Column("id", KEY, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ensembles")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_ensembles_tenant_name")),
    )
    op.create_index(
        "ix_ensembles_alive",
        "ensembles",
        ["tenant", "name"],
        unique=True,
        sqlite_where=ALIVE,
        postgresql_where=ALIVE,
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", KEY, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("live_versions", sa.Integer(), nullable=False),
        sa.Column("deleted_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_tasks_tenant_name")),
    )
    op.create_index(
        "ix_tasks_alive", "tasks", ["tenant", "name"], unique=True, sqlite_where=ALIVE, postgresql_where=ALIVE
    )


def _create_alias_moves() -> None:
    op.create_table(
        "alias_moves",
        sa.Column("id", KEY, nullable=False),
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("previous", sa.Integer(), nullable=True),
        sa.Column("back_id", KEY, nullable=True),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.Column("moved_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["back_id"], ["alias_moves.id"], name=op.f("fk_alias_moves_back_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["tasks.id"], name=op.f("fk_alias_moves_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_moves")),
    )
    op.create_index("ix_alias_moves_alias", "alias_moves", ["owner_id", "alias", "id"], unique=False)
    op.create_index("ix_alias_moves_owner", "alias_moves", ["owner_id", "id"], unique=False)


def _create_ensemble_alias_moves() -> None:
    op.create_table(
        "ensemble_alias_moves",
        sa.Column("id", KEY, nullable=False),
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("previous", sa.Integer(), nullable=True),
        sa.Column("back_id", KEY, nullable=True),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.Column("moved_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["back_id"], ["ensemble_alias_moves.id"], name=op.f("fk_ensemble_alias_moves_back_id")
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["ensembles.id"], name=op.f("fk_ensemble_alias_moves_owner_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ensemble_alias_moves")),
    )
    op.create_index(
        "ix_ensemble_alias_moves_alias", "ensemble_alias_moves", ["owner_id", "alias", "id"], unique=False
    )
    op.create_index("ix_ensemble_alias_moves_owner", "ensemble_alias_moves", ["owner_id", "id"], unique=False)


def _create_ensemble_versions() -> None:
    op.create_table(
        "ensemble_versions",
        sa.Column("id", KEY, nullable=False),
        sa.Column("ensemble_id", KEY, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("vote", sa.String(length=32), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["ensemble_id"], ["ensembles.id"], name=op.f("fk_ensemble_versions_ensemble_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ensemble_versions")),
        sa.UniqueConstraint("ensemble_id", "number", name=op.f("uq_ensemble_versions_ensemble_id_number")),
    )
    op.create_index(
        "ix_ensemble_versions_digest",
        "ensemble_versions",
        ["ensemble_id", "digest"],
        unique=True,
        sqlite_where=ALIVE,
        postgresql_where=ALIVE,
    )


def _create_task_labels() -> None:
    op.create_table(
        "task_labels",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("label", LABEL, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("task_id", KEY, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_labels_task_id")),
        sa.PrimaryKeyConstraint("tenant", "label", "name", name=op.f("pk_task_labels")),
    )
    op.create_index("ix_task_labels_task_id", "task_labels", ["task_id"], unique=False)


def _create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", KEY, nullable=False),
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("blob_digest", DIGEST, nullable=True),
        sa.Column("manifest_digest", DIGEST, nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("base_fingerprint", sa.String(length=128), nullable=True),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_by", sa.Text(), nullable=False),
        sa.CheckConstraint("(deleted_at IS NULL) = (blob_digest IS NOT NULL)", name=op.f("ck_versions_blob")),
        sa.ForeignKeyConstraint(["blob_digest"], ["blobs.digest"], name=op.f("fk_versions_blob_digest")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_versions_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_versions_task_id_number")),
    )
    op.create_index(
        "ix_versions_alive",
        "versions",
        ["task_id", "number"],
        unique=True,
        sqlite_where=ALIVE,
        postgresql_where=ALIVE,
    )
    op.create_index("ix_versions_blob_digest", "versions", ["blob_digest", "task_id"], unique=False)
    op.create_index(
        "ix_versions_manifest",
        "versions",
        ["task_id", "manifest_digest"],
        unique=True,
        sqlite_where=ALIVE,
        postgresql_where=ALIVE,
    )


def _create_aliases() -> None:
    op.create_table(
        "aliases",
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id", "number"],
            ["versions.task_id", "versions.number"],
            name=op.f("fk_aliases_owner_id_number"),
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["tasks.id"], name=op.f("fk_aliases_owner_id")),
        sa.PrimaryKeyConstraint("owner_id", "alias", name=op.f("pk_aliases")),
    )
    op.create_index("ix_aliases_number", "aliases", ["owner_id", "number"], unique=False)


def _create_ensemble_aliases() -> None:
    op.create_table(
        "ensemble_aliases",
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id", "number"],
            ["ensemble_versions.ensemble_id", "ensemble_versions.number"],
            name=op.f("fk_ensemble_aliases_owner_id_number"),
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["ensembles.id"], name=op.f("fk_ensemble_aliases_owner_id")),
        sa.PrimaryKeyConstraint("owner_id", "alias", name=op.f("pk_ensemble_aliases")),
    )
    op.create_index("ix_ensemble_aliases_number", "ensemble_aliases", ["owner_id", "number"], unique=False)


def _create_ensemble_members() -> None:
    op.create_table(
        "ensemble_members",
        sa.Column("ensemble_version_id", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("version_id", KEY, nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ensemble_version_id"],
            ["ensemble_versions.id"],
            name=op.f("fk_ensemble_members_ensemble_version_id"),
        ),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_ensemble_members_version_id")),
        sa.PrimaryKeyConstraint("ensemble_version_id", "position", name=op.f("pk_ensemble_members")),
    )
    op.create_index("ix_ensemble_members_version_id", "ensemble_members", ["version_id"], unique=False)
