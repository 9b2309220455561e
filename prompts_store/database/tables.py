"""The store's tables. Deleting sets `deleted_at`; rows of names and versions go only with the purge of their
tenant.

    tasks 1---n versions n---1 blobs          a live version always has its blob's row (checked by the
      database) |  1---n aliases, alias_moves           an alias names (task, number): it cannot point
      outside its task |  1---n task_labels                    labels of the `@live` version, for the list's
    filter ensembles 1---n ensemble_versions 1---n ensemble_members n---1 versions
      |       1---n ensemble_aliases, ensemble_alias_moves
    packs 1---n pack_versions 1---n pack_entries n---1 versions
      |       1---n pack_aliases, pack_alias_moves

`migrations/` creates them; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from prompts_store.database.columns import DIGEST, KEY, LABEL, NAME, Instant

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ALIVE = text("deleted_at IS NULL")
_UNREFERENCED = text("unreferenced_at IS NOT NULL")

store_identity = Table(
    "store_identity",
    metadata,
    # One row, written when the store is first opened: see `upkeep.identity`.
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", String(36), nullable=False),
    Column("created_at", Instant, nullable=False),
    # When any process may next look after the store: see `upkeep.turns`.
    Column("upkeep_due_at", Instant),
    CheckConstraint("number = 1", name="one"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", DIGEST, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    # Live versions of all tenants that name it. 0 since `unreferenced_at`; then the collector may remove it.
    Column("reference_count", Integer, nullable=False),
    Column("unreferenced_at", Instant, nullable=True),
    CheckConstraint("reference_count >= 0", name="count"),
    CheckConstraint("(reference_count = 0) = (unreferenced_at IS NOT NULL)", name="unreferenced"),
    Index(
        "ix_blobs_unreferenced",
        "unreferenced_at",
        "digest",
        sqlite_where=_UNREFERENCED,
        postgresql_where=_UNREFERENCED,
    ),
)


def _owners(name: str, *columns: Column[object]) -> Table:
    """A table of names in tenants: tasks, ensembles or packs. A name has one row, tombstoned or not."""
    return Table(
        name,
        metadata,
        Column("id", KEY, primary_key=True),
        Column("tenant", NAME, nullable=False),
        Column("name", NAME, nullable=False),
        Column("created_at", Instant, nullable=False),
        Column("deleted_at", Instant, nullable=True),
        # The highest number ever given, so that none is given twice.
        Column("last_number", Integer, nullable=False, default=0),
        *columns,
        UniqueConstraint("tenant", "name"),
        Index(
            f"ix_{name}_alive", "tenant", "name", unique=True, sqlite_where=_ALIVE, postgresql_where=_ALIVE
        ),
    )


def _aliases(prefix: str, owners: Table, versions: str, owner_column: str) -> tuple[Table, Table]:
    """The tables of such names' aliases and their moves."""
    aliases = Table(
        f"{prefix}aliases",
        metadata,
        Column("owner_id", ForeignKey(owners.c.id), primary_key=True),
        Column("alias", NAME, primary_key=True),
        Column("number", Integer, nullable=False),
        ForeignKeyConstraint(["owner_id", "number"], [f"{versions}.{owner_column}", f"{versions}.number"]),
        Index(f"ix_{prefix}aliases_number", "owner_id", "number"),
    )
    moves = Table(
        f"{prefix}alias_moves",
        metadata,
        Column("id", KEY, primary_key=True),
        Column("owner_id", ForeignKey(owners.c.id), nullable=False),
        Column("alias", NAME, nullable=False),
        Column("number", Integer, nullable=True),
        Column("previous", Integer, nullable=True),
        # The move that the next rollback looks at. History is a tree of states, and going back pops one.
        Column("back_id", ForeignKey(f"{prefix}alias_moves.id"), nullable=True),
        Column("moved_at", Instant, nullable=False),
        Column("moved_by", Text, nullable=False),
        Index(f"ix_{prefix}alias_moves_owner", "owner_id", "id"),
        Index(f"ix_{prefix}alias_moves_alias", "owner_id", "alias", "id"),
        # The database looks here whenever a row goes.
        Index(f"ix_{prefix}alias_moves_back_id", "back_id"),
    )
    return aliases, moves


tasks = _owners(
    "tasks",
    Column("description", Text, nullable=False),
    Column("live_versions", Integer, nullable=False),
    Column("deleted_by", Text, nullable=False, default=""),
)

versions = Table(
    "versions",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("task_id", ForeignKey(tasks.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("digest", DIGEST, nullable=False),
    # Emptied by a tombstone, so that the blob may be removed while its digest stays on record.
    Column("blob_digest", ForeignKey(blobs.c.digest), nullable=True),
    Column("manifest_digest", DIGEST, nullable=False),
    Column("length", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("base_fingerprint", String(128), nullable=True),
    Column("template", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("deleted_at", Instant, nullable=True),
    Column("deleted_by", Text, nullable=False, default=""),
    UniqueConstraint("task_id", "number"),
    CheckConstraint("(deleted_at IS NULL) = (blob_digest IS NOT NULL)", name="blob"),
    Index("ix_versions_blob_digest", "blob_digest", "task_id"),
    Index(
        "ix_versions_alive", "task_id", "number", unique=True, sqlite_where=_ALIVE, postgresql_where=_ALIVE
    ),
    Index(
        "ix_versions_manifest",
        "task_id",
        "manifest_digest",
        unique=True,
        sqlite_where=_ALIVE,
        postgresql_where=_ALIVE,
    ),
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("version_id", ForeignKey(versions.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("labels", JSON, nullable=False),
    Column("matrix_dtype", String(32), nullable=False),
    Column("temperature", Float, nullable=False),
    Column("prior", JSON(none_as_null=True), nullable=True),
    # How many rows it was fitted to.
    Column("rows", Integer, nullable=False),
    Column("measures", JSON, nullable=False),
    Column("source", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint("temperature >= 0.05 AND temperature <= 20", name="temperature"),
)

task_labels = Table(
    "task_labels",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("label", LABEL, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("task_id", ForeignKey(tasks.c.id), nullable=False),
    Index("ix_task_labels_task_id", "task_id"),
)

aliases, alias_moves = _aliases("", tasks, "versions", "task_id")

ensembles = _owners("ensembles")

ensemble_versions = Table(
    "ensemble_versions",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("ensemble_id", ForeignKey(ensembles.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("vote", String(32), nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("deleted_at", Instant, nullable=True),
    UniqueConstraint("ensemble_id", "number"),
    Index(
        "ix_ensemble_versions_digest",
        "ensemble_id",
        "digest",
        unique=True,
        sqlite_where=_ALIVE,
        postgresql_where=_ALIVE,
    ),
)

ensemble_members = Table(
    "ensemble_members",
    metadata,
    Column("ensemble_version_id", ForeignKey(ensemble_versions.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("version_id", ForeignKey(versions.c.id), nullable=False),
    Column("weight", Float, nullable=False),
    Index("ix_ensemble_members_version_id", "version_id"),
)

ensemble_aliases, ensemble_alias_moves = _aliases("ensemble_", ensembles, "ensemble_versions", "ensemble_id")

packs = _owners("packs")

pack_versions = Table(
    "pack_versions",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("pack_id", ForeignKey(packs.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    # What happens to a question that the pack does not know: `refuse` or `base`.
    Column("unknown_questions", String(16), nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("deleted_at", Instant, nullable=True),
    UniqueConstraint("pack_id", "number"),
    Index(
        "ix_pack_versions_digest",
        "pack_id",
        "digest",
        unique=True,
        sqlite_where=_ALIVE,
        postgresql_where=_ALIVE,
    ),
)

pack_entries = Table(
    "pack_entries",
    metadata,
    Column("pack_version_id", ForeignKey(pack_versions.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("question", Text, nullable=False),
    Column("version_id", ForeignKey(versions.c.id), nullable=False),
    # The version's label of each value of the question that is not one itself.
    Column("labels", JSON, nullable=False),
    Index("ix_pack_entries_version_id", "version_id"),
)

pack_aliases, pack_alias_moves = _aliases("pack_", packs, "pack_versions", "pack_id")
