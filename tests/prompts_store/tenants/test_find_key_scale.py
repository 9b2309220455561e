"""Finding one of 100,000 keys is one step in an index, and one in the tenants'."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from tests.postgres_server import as_role

# `{numbers}` are 1 to 100,000, in the database's own way of counting; `{public}` has eight characters.
TENANTS = """
INSERT INTO tenants (name, display_name, weight, status, limits, created_at, created_by)
SELECT 'tenant-' || (n - 1), '', 1.0, 'active', '{{}}', 0, '' FROM {numbers} WHERE n <= 20000
"""
KEYS = """
INSERT INTO keys (number, id, tenant, public, digest, name, scopes, limits, created_at, created_by)
SELECT
    n, 'key-' || n, 'tenant-' || (n - n / 1000 * 1000), {public}, 'digest-' || n, 'app-' || n, '["infer"]',
    '{{}}', 0, ''
FROM {numbers}
"""
COUNTING = {
    "sqlite": (
        "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c)"
        " AS counted",
        "printf('%08d', n)",
    ),
    "postgresql": ("generate_series(1, 100000) AS n", "lpad(n::text, 8, '0')"),
}
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}


@pytest.fixture(params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PromptStore]:
    """A store with 100,000 keys of a thousand tenants, among 20,000: so many that PostgreSQL would not rather
    read them all."""
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres_server").emptied() if on_server else None
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        numbers, public = COUNTING[request.param]
        with store._database.write(EVERY_TENANT) as connection:
            for statement in (TENANTS, KEYS):
                connection.exec_driver_sql(statement.format(numbers=numbers, public=public))
            connection.exec_driver_sql("ANALYZE")
        if url is not None:
            with psycopg.connect(as_role(url, "chorus")) as owner:  # the server's own login may not
                owner.execute("ANALYZE")
        yield store


def test_a_key_is_found_by_the_index_in_one_query(filled: PromptStore) -> None:
    engine = filled._database.engine
    sent: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: Any, *rest: object) -> None:
        if statement.startswith("SELECT"):
            sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    found = filled.find_key("00077777")
    event.remove(engine, "before_cursor_execute", note)
    assert found is not None and found.digest == "digest-77777" and found.key.tenant == "tenant-777"
    ((statement, parameters),) = sent
    with filled._database.read(EVERY_TENANT) as connection:
        plan = str(connection.exec_driver_sql(EXPLAIN[engine.dialect.name] + statement, parameters).all())
        control = "SELECT * FROM keys WHERE digest = 'digest-7'"
        scan = str(connection.exec_driver_sql(EXPLAIN[engine.dialect.name] + control).all())
    if engine.dialect.name == "sqlite":
        assert "SEARCH keys USING INDEX sqlite_autoindex_keys" in plan and "(public=?)" in plan
        assert "SEARCH tenants USING" in plan and "SCAN" not in plan
        assert "SCAN keys" in scan, "control: a column without an index"
    else:
        assert "Index Scan using uq_keys_public" in plan and "Seq Scan" not in plan, plan
        assert "Seq Scan on keys" in scan, "control: a column without an index"
