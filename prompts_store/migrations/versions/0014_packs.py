"""Decision packs, which may be granted as ensembles are, behind the fence of 0012."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
DIGEST = sa.String(length=64)
ALIVE = sa.text("deleted_at IS NULL")
WHOSE = "nullif(current_setting('chorus.tenant', true), '')"
EVERY_TENANT = "(current_setting('chorus.tenant', true) = '*' AND (SELECT chorus_every_tenant()))"
CHILDREN = {
    "pack_versions": ("pack_id", "packs"),
    "pack_aliases": ("owner_id", "packs"),
    "pack_alias_moves": ("owner_id", "packs"),
    "pack_entries": ("pack_version_id", "pack_versions"),
}
POLICIES = {"packs": f"tenant = {WHOSE}"} | {
    table: f"EXISTS (SELECT FROM {owner} WHERE {owner}.id = {table}.{column})"
    for table, (column, owner) in CHILDREN.items()
}


def upgrade() -> None:
    """Empty: there were none before."""
    _create_packs()
    _create_aliases()
    _grant("'task', 'ensemble', 'pack'")
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, condition in POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({EVERY_TENANT} OR {condition})")


def downgrade() -> None:
    """Packs go, and what was granted of them."""
    op.execute("DELETE FROM grants WHERE kind = 'pack'")
    _grant("'task', 'ensemble'")
    for table in ("pack_aliases", "pack_alias_moves", "pack_entries", "pack_versions", "packs"):
        op.drop_table(table)


def _create_packs() -> None:
    op.create_table(
        "packs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_packs_tenant_name")),
    )
    _alive("ix_packs_alive", "packs", ["tenant", "name"])
    op.create_table(
        "pack_versions",
        sa.Column("id", KEY, nullable=False),
        sa.Column("pack_id", KEY, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("unknown_questions", sa.String(length=16), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name=op.f("fk_pack_versions_pack_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pack_versions")),
        sa.UniqueConstraint("pack_id", "number", name=op.f("uq_pack_versions_pack_id_number")),
    )
    _alive("ix_pack_versions_digest", "pack_versions", ["pack_id", "digest"])
    op.create_table(
        "pack_entries",
        sa.Column("pack_version_id", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("version_id", KEY, nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pack_version_id"], ["pack_versions.id"], name=op.f("fk_pack_entries_pack_version_id")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_pack_entries_version_id")),
        sa.PrimaryKeyConstraint("pack_version_id", "position", name=op.f("pk_pack_entries")),
    )
    op.create_index("ix_pack_entries_version_id", "pack_entries", ["version_id"])


def _create_aliases() -> None:
    op.create_table(
        "pack_aliases",
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id", "number"],
            ["pack_versions.pack_id", "pack_versions.number"],
            name=op.f("fk_pack_aliases_owner_id_number"),
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["packs.id"], name=op.f("fk_pack_aliases_owner_id")),
        sa.PrimaryKeyConstraint("owner_id", "alias", name=op.f("pk_pack_aliases")),
    )
    op.create_index("ix_pack_aliases_number", "pack_aliases", ["owner_id", "number"])
    op.create_table(
        "pack_alias_moves",
        sa.Column("id", KEY, nullable=False),
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("previous", sa.Integer(), nullable=True),
        sa.Column("back_id", KEY, nullable=True),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.Column("moved_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["back_id"], ["pack_alias_moves.id"], name=op.f("fk_pack_alias_moves_back_id")
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["packs.id"], name=op.f("fk_pack_alias_moves_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pack_alias_moves")),
    )
    op.create_index("ix_pack_alias_moves_owner", "pack_alias_moves", ["owner_id", "id"])
    op.create_index("ix_pack_alias_moves_alias", "pack_alias_moves", ["owner_id", "alias", "id"])
    op.create_index("ix_pack_alias_moves_back_id", "pack_alias_moves", ["back_id"])


def _alive(name: str, table: str, columns: list[str]) -> None:
    op.create_index(name, table, columns, unique=True, sqlite_where=ALIVE, postgresql_where=ALIVE)


def _grant(kinds: str) -> None:
    with op.batch_alter_table("grants") as grants:
        grants.drop_constraint(op.f("ck_grants_kind"), type_="check")
        grants.create_check_constraint(op.f("ck_grants_kind"), f"kind IN ({kinds})")
