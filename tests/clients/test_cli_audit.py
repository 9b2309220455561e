"""`chorus audit` and `client.audit`, against the real server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from chorus import AsyncClient, AuditPage, Client, InvalidArgumentError
from chorus.cli import audit, root
from chorus_server.model.vocabulary import Vocabulary
from tests.clients.operated import Operated
from tests.prompts_store.audit.tampering import as_owner


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[Operated]:
    with Operated(tmp_path_factory.mktemp("data"), vocabulary) as server:
        yield server


def run(operated: Operated, *words: str) -> Result:
    env = {"CHORUS_URL": operated.url, "CHORUS_API_KEY": operated.key}
    result = CliRunner().invoke(root.chorus, list(words), env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def changed(operated: Operated, tenant: str, number: int) -> None:
    operated.store.create_tenant(tenant)
    for weight in range(2, number + 1):
        operated.store.update_tenant(tenant, weight=weight + 0.5)


def test_changes_are_listed(operated: Operated) -> None:
    assert run(operated, "tenants", "create", "acme").exit_code == 0
    result = run(operated, "audit", "list", "--tenant", "acme", "--action", "tenant.create")
    assert result.exit_code == 0 and "tenant.create" in result.stdout and "127.0.0.1" in result.stdout
    assert "There are no changes." in run(operated, "audit", "list", "--tenant", "nobody").stdout
    (row,) = json.loads(run(operated, "--json", "audit", "list", "--tenant", "acme").stdout)["rows"]
    assert row["actor"].startswith("key-") and row["request_id"]


def test_an_export_is_what_the_hashes_were_computed_of(
    operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE", 3)
    changed(operated, "birch", 7)
    rows = [
        json.loads(line) for line in run(operated, "audit", "export", "--tenant", "birch").stdout.splitlines()
    ]
    assert [row["sequence"] for row in rows] == list(range(1, 8))
    for row in rows:
        claimed = row.pop("hash")
        text = json.dumps(row, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == claimed


def test_a_log_is_verified(operated: Operated) -> None:
    changed(operated, "cedar", 5)
    result = run(operated, "audit", "verify", "--tenant", "cedar")
    newest = operated.store.audit_rows("cedar")[-1]
    assert result.exit_code == 0 and "The log is one chain." in result.stdout
    assert f"5 rows, the newest is 5 with the hash {newest.hash}" in result.stdout
    as_owner(operated.store, "UPDATE audit SET actor = 'bob' WHERE tenant = 'cedar' AND sequence = 2")
    result = run(operated, "audit", "verify", "--tenant", "cedar")
    assert result.exit_code == 1 and "row 2 does not have the hash of what it says" in result.stdout
    as_owner(operated.store, "DELETE FROM audit WHERE tenant = 'cedar' AND sequence = 4")
    result = run(operated, "--json", "audit", "verify", "--tenant", "cedar")
    assert result.exit_code == 1
    assert "rows between 3 and 5 are missing" in json.loads(result.stdout)["problems"]
    as_owner(operated.store, "UPDATE audit SET sequence = 4 WHERE tenant = 'cedar' AND sequence = 5")
    assert run(operated, "audit", "verify", "--tenant", "cedar").exit_code == 1, "moved to close the gap"


def test_both_clients_read_pages(operated: Operated) -> None:
    changed(operated, "dogwood", 3)
    later = datetime.now(UTC) + timedelta(days=1)
    with Client(operated.url, operated.key) as client:
        page = client.audit.page(tenant="dogwood", limit=2)
        assert [row.sequence for row in page.rows] == [1, 2] and page.next_after == 2
        assert client.audit.page(tenant="dogwood", since=later).rows == []
        with pytest.raises(InvalidArgumentError):
            client.audit.page(until=datetime(2026, 1, 1))

    async def awaited() -> AuditPage:
        async with AsyncClient(operated.url, operated.key) as client:
            return await client.audit.page(tenant="dogwood", after=2, until=later)

    rest = asyncio.run(awaited())
    assert [row.after for row in rest.rows] == [{"weight": 3.5}] and rest.next_after is None
