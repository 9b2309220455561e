"""The lint of queries: this tree is clean, and each way to forget the tenant is refused."""

from __future__ import annotations

import pytest

import tenant_scope
from tests.places import ROOT

BEGIN = "from sqlalchemy import select, update\nfrom prompts_store.database.tables import tasks, versions\n"


def test_every_query_says_whose_rows_it_is_about() -> None:
    assert tenant_scope.check(ROOT) == []


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return connection.execute(select(tasks)).all()", "asks without the tenant"),
        ("return select(tasks).where(tasks.c.name == name)", "asks without the tenant"),
        ("return update(tasks).values(description='x')", "asks without the tenant"),
        # A join says nothing about whose the rows are.
        ("return select(versions).join(tasks, versions.c.task_id == tasks.c.id)", "asks without the tenant"),
        ("return select_versions().where(versions.c.number > 1)", "asks without the tenant"),
        ("with database.read(EVERY_TENANT) as connection: pass", "is about every tenant"),
        ("connection.exec_driver_sql('DELETE FROM tasks')", "SQL as a text"),
        ("connection.execute(text('DELETE FROM tasks'))", "SQL as a text"),
    ],
)
def test_a_query_that_forgets_the_tenant_is_refused(body: str, what: str) -> None:
    source = f"{BEGIN}def forgets(connection, database, name):\n    {body}\n"
    assert [what in fault for fault in tenant_scope.faults("prompts_store/tasks/new.py", source, {})] == [
        True
    ]
    # Control: only what the reason names is excused.
    named = {"prompts_store/tasks/new.py:forgets": "a reason"}
    assert list(tenant_scope.faults("prompts_store/tasks/new.py", source, named)) == []
    other = {"prompts_store/tasks/new.py:another": "a reason"}
    assert list(tenant_scope.faults("prompts_store/tasks/new.py", source, other))


@pytest.mark.parametrize(
    "body",
    [
        "return select(tasks).where(tasks.c.tenant == tenant, tasks.c.name == name)",
        "return select(versions).where(versions.c.task_id == row.id)",
        "return select_versions().where(tasks.c.tenant == tenant)",
        "with database.read(tenant) as connection: pass",
    ],
)
def test_control_a_query_that_says_whose_is_not(body: str) -> None:
    source = f"{BEGIN}def says(connection, database, tenant, name, row):\n    {body}\n"
    assert list(tenant_scope.faults("prompts_store/tasks/new.py", source, {})) == []


@pytest.mark.parametrize(
    "line",
    [
        "from sqlalchemy import select",
        "import sqlalchemy",
        "from prompts_store.database.tables import tasks",
        "from prompts_store.database import scoped",
    ],
)
def test_nobody_else_asks_the_database(line: str) -> None:
    assert list(tenant_scope.faults("server/chorus_server/api/new.py", line, {}))
    assert not list(tenant_scope.faults("server/chorus_server/api/new.py", "from prompts_store import x", {}))
