"""The sums of each day, which the database keeps itself: so they are right whichever version adds to hours or
drops them. Behind the fence of 0012."""

import sqlalchemy as sa
from alembic import op

revision = "0021_serves_0019"
down_revision = "0020_serves_0019"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
TASK = sa.String(length=129).with_variant(sa.String(length=129, collation="C"), "postgresql")
OUTCOMES = "outcome IN ('answered', 'failed', 'cancelled')"
WHOSE = "nullif(current_setting('chorus.tenant', true), '')"
EVERY_TENANT = "(current_setting('chorus.tenant', true) = '*' AND (SELECT chorus_every_tenant()))"

COLUMNS = "tenant, day, key, task, outcome, items, tokens_in, tokens_out, work_units"


def values(row: str) -> str:
    """An hour's row as its day's, in the order of `COLUMNS`."""
    return (
        f"{row}.tenant, {row}.hour - {row}.hour % 86400000000, {row}.key, {row}.task, {row}.outcome, "
        f"{row}.items, {row}.tokens_in, {row}.tokens_out, {row}.work_units"
    )


def day_of(row: str) -> str:
    """The condition for the day of an hour."""
    return (
        f"tenant = {row}.tenant AND day = {row}.hour - {row}.hour % 86400000000 AND key = {row}.key "
        f"AND task = {row}.task AND outcome = {row}.outcome"
    )


# What names an hour never changes, so that an update changes counts alone.
ADD = f"""INSERT INTO usage_days ({COLUMNS}) VALUES ({values("NEW")})
    ON CONFLICT (tenant, day, key, task, outcome) DO UPDATE SET
        items = usage_days.items + excluded.items,
        tokens_in = usage_days.tokens_in + excluded.tokens_in,
        tokens_out = usage_days.tokens_out + excluded.tokens_out,
        work_units = usage_days.work_units + excluded.work_units;"""
CHANGE = f"""UPDATE usage_days SET
        items = items + NEW.items - OLD.items,
        tokens_in = tokens_in + NEW.tokens_in - OLD.tokens_in,
        tokens_out = tokens_out + NEW.tokens_out - OLD.tokens_out,
        work_units = work_units + NEW.work_units - OLD.work_units
    WHERE {day_of("NEW")};"""
REMOVE = f"""UPDATE usage_days SET
        items = items - OLD.items,
        tokens_in = tokens_in - OLD.tokens_in,
        tokens_out = tokens_out - OLD.tokens_out,
        work_units = work_units - OLD.work_units
    WHERE {day_of("OLD")};
    DELETE FROM usage_days WHERE {day_of("OLD")} AND items = 0;"""
SQLITE = (
    f"CREATE TRIGGER usage_hours_added AFTER INSERT ON usage_hours BEGIN {ADD} END",
    f"CREATE TRIGGER usage_hours_changed AFTER UPDATE ON usage_hours BEGIN {CHANGE} END",
    f"CREATE TRIGGER usage_hours_removed AFTER DELETE ON usage_hours BEGIN {REMOVE} END",
)
POSTGRESQL = (
    f"""CREATE FUNCTION usage_days_follow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN {ADD}
        ELSIF TG_OP = 'UPDATE' THEN {CHANGE}
        ELSE {REMOVE}
        END IF;
        RETURN NULL;
    END $$""",
    # At the commit: days are locked after all hours, so that nobody who has a day waits for an hour.
    """CREATE CONSTRAINT TRIGGER usage_hours_followed AFTER INSERT OR UPDATE OR DELETE ON usage_hours
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION usage_days_follow()""",
)


def upgrade() -> None:
    """Add up what there is. Nobody else adds meanwhile: SQLite has one writer, and making a trigger locks the
    table in PostgreSQL."""
    op.create_table(
        "usage_days",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("task", TASK, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("tokens_in", sa.BigInteger(), nullable=False),
        sa.Column("tokens_out", sa.BigInteger(), nullable=False),
        sa.Column("work_units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(OUTCOMES, name=op.f("ck_usage_days_outcome")),
        sa.PrimaryKeyConstraint("tenant", "day", "key", "task", "outcome", name=op.f("pk_usage_days")),
        sqlite_with_rowid=False,
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL if postgresql else SQLITE:
        op.execute(statement)
    op.execute(
        f"INSERT INTO usage_days ({COLUMNS}) SELECT tenant, hour - hour % 86400000000, key, task, outcome, "
        "sum(items), sum(tokens_in), sum(tokens_out), sum(work_units) FROM usage_hours GROUP BY 1, 2, 3, 4, 5"
    )
    if postgresql:
        op.execute("ALTER TABLE usage_days ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE usage_days FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON usage_days USING ({EVERY_TENANT} OR tenant = {WHOSE})")


def downgrade() -> None:
    """The hours have it all."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER usage_hours_followed ON usage_hours")
        op.execute("DROP FUNCTION usage_days_follow()")
    else:
        for name in ("added", "changed", "removed"):
            op.execute(f"DROP TRIGGER usage_hours_{name}")
    op.drop_table("usage_days")
