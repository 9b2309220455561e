"""What somebody did to the log behind the store's back is found, and an untouched log is clean."""

import hashlib
import json

import pytest

from prompts_store import PromptStore
from prompts_store.audit import chain
from prompts_store.audit.records import AuditRow
from prompts_store.audit.verifying import verify
from prompts_store.records import Actor
from prompts_store.testing import FakeClock
from tests.prompts_store.audit.tampering import as_owner

ROWS = 8


@pytest.fixture
def log(store: PromptStore) -> PromptStore:
    """A store whose tenant acme has 8 rows, and birch 2."""
    ann = store.acting_for(Actor("ann", "192.0.2.1", "request-1"))
    for tenant, number in (("acme", ROWS), ("birch", 2)):
        ann.create_tenant(tenant, display_name="é\U0001f600", weight=0.5)
        for weight in range(2, number + 1):
            ann.update_tenant(tenant, weight=weight + 0.25)
    return store


def found(store: PromptStore) -> list[tuple[str, int]]:
    return [(problem.kind, problem.sequence) for problem in store.verify_audit("acme").problems]


def test_control_an_untouched_log_is_clean(log: PromptStore) -> None:
    report = log.verify_audit("acme")
    assert report.clean and report.rows == ROWS and report.head is not None
    newest = log.audit_rows("acme")[-1]
    assert (report.head.sequence, report.head.hash) == (ROWS, newest.hash)
    assert log.verify_audit("nobody").clean and log.verify_audit("nobody").head is None


@pytest.mark.parametrize(
    "change",
    [
        "at = at + 1",
        "actor = 'bob'",
        "address = '192.0.2.2'",
        "request_id = ''",
        "action = 'tenant.suspend'",
        "subject = 'x'",
        """before = '{"weight":1.5}'""",
        "before = NULL",
        """after = '{"weight":9}'""",
        "previous = hash",
        "hash = previous",
    ],
)
@pytest.mark.parametrize("sequence", [1, 4, ROWS])
def test_a_changed_row_is_found(log: PromptStore, change: str, sequence: int) -> None:
    as_owner(log, f"UPDATE audit SET {change} WHERE tenant = 'acme' AND sequence = {sequence}")
    if change == "before = NULL" and sequence == 1:
        assert found(log) == [], "there was nothing before it"
        return
    assert ("changed", sequence) in found(log)
    assert {place for _, place in found(log)} == {sequence}, "and no other is blamed"
    assert log.verify_audit("birch").clean


@pytest.mark.parametrize(("first", "last"), [(1, 1), (3, 3), (3, 6), (ROWS, ROWS), (5, ROWS), (1, ROWS)])
def test_missing_rows_are_found(log: PromptStore, first: int, last: int) -> None:
    """Those at the end too: the head knows how many there were."""
    as_owner(log, f"DELETE FROM audit WHERE tenant = 'acme' AND sequence BETWEEN {first} AND {last}")
    assert found(log) == [("missing", first)]


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 4), (2, 7), (ROWS - 1, ROWS)])
def test_reordered_rows_are_found(log: PromptStore, one: int, other: int) -> None:
    move = "UPDATE audit SET sequence = {} WHERE tenant = 'acme' AND sequence = {}"
    as_owner(log, move.format(99, one), move.format(one, other), move.format(other, 99))
    assert [each for each in found(log) if each[0] != "head"] == [("reordered", one), ("reordered", other)]


def test_rows_that_closed_the_gap_of_a_removed_one_are_found(log: PromptStore) -> None:
    move = "UPDATE audit SET sequence = {} WHERE tenant = 'acme' AND sequence = {}"
    closed = [move.format(number - 1, number) for number in range(4, ROWS + 1)]
    as_owner(log, "DELETE FROM audit WHERE tenant = 'acme' AND sequence = 3", *closed)
    assert [place for kind, place in found(log) if kind == "reordered"] == list(range(3, ROWS))
    assert ("missing", ROWS) in found(log)


def _rehashed(row: AuditRow, **changes: object) -> str:
    facts = {**chain.row_facts(row), **changes}
    del facts["hash"]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("sequence", [1, 4, ROWS])
def test_a_row_that_was_changed_with_its_hash_is_found_by_the_next(log: PromptStore, sequence: int) -> None:
    row = log.audit_rows("acme")[sequence - 1]
    assert _rehashed(row) == row.hash, "the hash is what the docs say"
    where = f"WHERE tenant = 'acme' AND sequence = {sequence}"
    as_owner(log, f"UPDATE audit SET actor = 'bob', hash = '{_rehashed(row, actor='bob')}' {where}")
    assert found(log) == [("head" if sequence == ROWS else "changed", sequence)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("hash = '" + "1" * 64 + "'", ("head", ROWS)),
        (f"sequence = {ROWS + 1}", ("missing", ROWS + 1)),
        (f"sequence = {ROWS - 1}", ("head", ROWS - 1)),
        ("dropped_hash = '" + "1" * 64 + "'", ("changed", 0)),
        ("tenant = 'cedar'", ("head", ROWS)),
    ],
)
def test_a_wrong_head_is_found(log: PromptStore, change: str, problem: tuple[str, int]) -> None:
    as_owner(log, f"UPDATE audit_heads SET {change} WHERE tenant = 'acme'")
    assert problem in found(log)


def test_a_row_of_another_tenant_is_found(log: PromptStore) -> None:
    as_owner(
        log,
        "DELETE FROM audit WHERE tenant = 'acme' AND sequence = 2",
        "UPDATE audit SET tenant = 'acme' WHERE tenant = 'birch' AND sequence = 2",
    )
    assert ("changed", 2) in found(log)
    assert [problem.kind for problem in log.verify_audit("birch").problems] == ["missing"]


def test_the_number_of_problems_is_bounded(log: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prompts_store.audit.verifying.MAX_PROBLEMS", 3)
    as_owner(log, "UPDATE audit SET actor = 'bob'")
    assert found(log) == [("changed", 1), ("changed", 2), ("changed", 3)]


def test_an_export_is_verified_like_the_log(log: PromptStore, clock: FakeClock) -> None:
    rows = list(log.every_audit_row("acme"))
    head = log.verify_audit("acme").head
    assert verify("acme", head, rows).clean
    assert not verify("acme", head, rows[:-1]).clean
    lines = [json.loads(json.dumps(chain.row_facts(row))) for row in rows]
    for line in lines:
        claimed = line.pop("hash")
        text = json.dumps(line, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == claimed
