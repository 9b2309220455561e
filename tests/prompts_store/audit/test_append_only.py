"""The database itself keeps the log: nobody changes or removes a row, but for months that were dropped."""

from datetime import UTC, datetime

import pytest

from prompts_store import PromptStore
from prompts_store.audit import audit_log
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.errors import InvalidError
from prompts_store.records import Actor
from prompts_store.tenants.records import Retention
from prompts_store.testing import FakeClock, example_prompt
from tests.prompts_store.audit.tampering import as_owner

DAY = 86_400


def make_rows(store: PromptStore, tenant: str = "acme", number: int = 4) -> None:
    store.ensure_tenant(tenant)
    for weight in range(2, number + 1):
        store.update_tenant(tenant, weight=weight)


REFUSED = [
    "UPDATE audit SET actor = 'bob'",
    "UPDATE audit SET hash = hash",
    "DELETE FROM audit",
    "DELETE FROM audit WHERE sequence = 4",
    "UPDATE audit_heads SET sequence = sequence - 1",
    "UPDATE audit_heads SET tenant = 'other'",
    "DELETE FROM audit_heads",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_the_database_refuses(store: PromptStore, statement: str) -> None:
    make_rows(store)
    before = store.audit_rows("acme")
    with pytest.raises(Exception, match="audit log"):
        as_owner(store, statement, triggers=True)
    assert store.audit_rows("acme") == before and store.verify_audit("acme").clean


@pytest.mark.parametrize("statement", REFUSED)
def test_control_without_the_triggers_it_does_not(store: PromptStore, statement: str) -> None:
    make_rows(store)
    as_owner(store, statement)


@pytest.mark.parametrize("table", ["audit", "audit_heads"])
def test_nothing_is_replaced_or_truncated(store: PromptStore, table: str) -> None:
    make_rows(store)
    if store._database.embedded:
        statement = f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
    else:
        statement = f"TRUNCATE {table}"
    with pytest.raises(Exception, match="audit log"):
        as_owner(store, statement, triggers=True)
    assert len(store.audit_rows("acme")) == 4


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 10, tzinfo=UTC))


def test_whole_months_are_dropped_and_the_rest_is_a_chain(store: PromptStore, clock: FakeClock) -> None:
    make_rows(store)  # 4 rows on January 10th
    clock.advance(20 * DAY)
    store.update_tenant("acme", weight=90)  # on January 30th
    clock.advance(5 * DAY)
    store.update_tenant("acme", weight=91)  # on February 4th
    make_rows(store, "birch", 2)
    clock.advance(25 * DAY)  # March 1st
    assert store.drop_audit(30) == 0, "30 days ago it was January: that month is not over long enough"
    clock.advance(2 * DAY)
    last = store.audit_rows("acme")[4]
    assert store.drop_audit(30) == 5, "30 days ago it was February 1st"
    assert store.drop_audit(30) == 0
    rows = store.audit_rows("acme")
    assert [(row.sequence, row.action) for row in rows] == [(6, "tenant.update"), (7, "audit.drop")]
    assert rows[0].previous == last.hash
    assert rows[1].before == {"first": 1, "last": 5, "last_hash": last.hash} and rows[1].actor == "chorus"
    report = store.verify_audit("acme")
    assert report.clean and report.head is not None
    assert (report.head.dropped, report.head.dropped_hash) == (5, last.hash)
    assert len(store.audit_rows("birch")) == 2, "it began in February"
    with pytest.raises(Exception, match="audit log"):
        as_owner(store, "DELETE FROM audit WHERE sequence = 6", triggers=True)
    as_owner(store, "DELETE FROM audit WHERE tenant = 'acme' AND sequence = 6")
    assert [problem.kind for problem in store.verify_audit("acme").problems] == ["missing"]


def test_each_tenant_keeps_its_own_days_and_others_for_ever(store: PromptStore, clock: FakeClock) -> None:
    make_rows(store, "acme")
    make_rows(store, "birch")
    store.publish("cedar", "task", *example_prompt(1))
    store.acting_for(Actor("ann")).adopt()
    store.update_tenant("acme", retention=Retention(audit_days=40))
    clock.advance(400 * DAY)
    assert store.drop_audit() == 5
    kept = {tenant: len(store.audit_rows(tenant)) for tenant in store.audited()}
    assert kept == {OF_THE_STORE: 1, "acme": 1, "birch": 4, "cedar": 2}
    store.update_tenant("birch", retention=Retention(audit_days=500))
    assert store.drop_audit(100) == 3, "of cedar and of the store"
    kept = {tenant: len(store.audit_rows(tenant)) for tenant in store.audited()}
    assert kept == {OF_THE_STORE: 1, "acme": 1, "birch": 5, "cedar": 1}
    assert all(store.verify_audit(tenant).clean for tenant in store.audited())
    for wrong in (0, -1, float("nan"), True):
        with pytest.raises(InvalidError):
            store.drop_audit(wrong)  # type: ignore[arg-type]


def test_the_collector_drops_too(store: PromptStore, clock: FakeClock) -> None:
    make_rows(store)
    store.update_tenant("acme", retention=Retention(audit_days=1))
    clock.advance(400 * DAY)
    store.collect(grace_seconds=0)
    assert [row.action for row in store.audit_rows("acme")] == ["audit.drop"]


def test_many_are_dropped_in_parts_each_of_which_is_told(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rows(store, number=7)
    clock.advance(400 * DAY)
    monkeypatch.setattr(audit_log, "_DROPPED_AT_ONCE", 3)
    assert store.drop_audit(1) == 7
    rows = store.audit_rows("acme")
    assert [(row.before or {})["last"] for row in rows] == [3, 6, 7]
    assert store.verify_audit("acme").clean
    store.update_tenant("acme", weight=90)
    assert store.verify_audit("acme").clean and store.audit_rows("acme")[-1].sequence == 11


def test_a_log_with_a_hole_is_kept_as_evidence(store: PromptStore, clock: FakeClock) -> None:
    make_rows(store)
    as_owner(store, "DELETE FROM audit WHERE sequence = 2")
    clock.advance(400 * DAY)
    assert store.drop_audit(1) == 0
    assert [problem.kind for problem in store.verify_audit("acme").problems] == ["missing"]
