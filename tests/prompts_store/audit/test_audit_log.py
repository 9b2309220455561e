"""Who did what is told, in the transaction that does it."""

import inspect
import json
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, update
from sqlalchemy.exc import IntegrityError

from prompts_store import PromptStore
from prompts_store.audit import chain
from prompts_store.audit.records import OF_THE_STORE, AuditFilter, AuditRow
from prompts_store.database import EVERY_TENANT, database
from prompts_store.database.tables import tasks
from prompts_store.errors import InvalidError, StoreError
from prompts_store.jobs.records import Lease
from prompts_store.packs.entries import UNKNOWN_QUESTIONS
from prompts_store.records import CHORUS, Actor, EnsembleMember, PackEntry
from prompts_store.tenants.limits import Amounts, TenantLimits
from prompts_store.testing import FakeClock, example_calibration, example_file, example_prompt, file_bytes
from tests.postgres_server import WAITING_FOR_ROWS, PostgresServer
from tests.prompts_store.writers import WRITERS, writing_processes

ANN = Actor("key-of-ann", "192.0.2.7", "request-7")
SPEC = {"base_fingerprint": "base"}


def told(store: PromptStore, tenant: str = "acme", after: int = 0) -> list[tuple[str, str]]:
    return [(row.action, row.subject) for row in store.audit_rows(tenant, after=after)]


def prepared(store: PromptStore) -> dict[str, Any]:
    """Something of everything, in several states."""
    for name in ("acme", "idle", "gone"):
        store.create_tenant(name)
    store.suspend_tenant("idle")
    for seed in (1, 2, 3):
        store.publish("acme", "sst2", *example_prompt(seed))
    store.publish("acme", "single", *example_prompt(1))
    store.publish("gone", "task", *example_prompt(5))
    store.set_alias("acme", "sst2", "live", 2)
    store.set_alias("acme", "sst2", "canary", 2)
    for number in (1, 2):
        store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", number)])
    store.set_ensemble_alias("acme", "team", "live", 2)
    store.set_ensemble_alias("acme", "team", "canary", 2)
    store.share("ensemble", "acme", "team", "*", ["read"])
    store.publish("acme", "mood", *example_prompt(9, labels=("good", "bad")))
    for policy in UNKNOWN_QUESTIONS:
        store.publish_pack("acme", "desk", [PackEntry("mood", "acme", "mood", 1)], policy)
    store.set_pack_alias("acme", "desk", "live", 2)
    store.set_pack_alias("acme", "desk", "canary", 2)
    store.share("pack", "acme", "desk", "*", ["infer"])
    file, used = example_file(store, b"rows"), example_file(store, b"used")
    waiting = store.create_job("acme", "tuning", SPEC, files={"data.train.file": used.id})
    stopped = store.create_job("acme", "tuning", SPEC)
    store.cancel_job("acme", stopped.id)
    key, _ = store.create_key("acme", "app", scopes=["infer"])
    store.delete_tenant("gone", grace_seconds=0)
    return {"file": file.id, "job": waiting.id, "stopped": stopped.id, "key": key.id}


def _claimed(store: PromptStore) -> Lease:
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    return claimed[1]


def _something_to_repair(store: PromptStore) -> None:
    with store._database.write(EVERY_TENANT) as connection:
        connection.execute(update(tasks).values(live_versions=99))
    store.check(repair=True)


def _write_file(store: PromptStore) -> None:
    with store.write_file("acme", "rows.csv", max_bytes=9) as writer:
        writer.write(b"a")
        writer.commit()


def _collect(store: PromptStore) -> None:
    store.delete_version("acme", "sst2", 3)
    store.collect(grace_seconds=0)


def _drop(store: PromptStore) -> None:
    clock = store._clock
    store._clock = lambda: clock() + timedelta(days=400)
    store.drop_audit(1)


Write = Callable[[PromptStore, dict[str, Any]], object]

WRITES: dict[str, tuple[Write, list[str]]] = {
    "publish": (
        lambda store, ids: store.publish("acme", "new", *example_prompt(7)), ["task.publish", "alias.move"],
    ),
    "delete_task": (lambda store, ids: store.delete_task("acme", "single"), ["alias.remove", "task.delete"]),
    "delete_version": (lambda store, ids: store.delete_version("acme", "sst2", 3), ["version.delete"]),
    "calibrate": (
        lambda store, ids: store.calibrate("acme", "sst2", 3, example_calibration()), ["version.calibrate"],
    ),
    "set_alias": (lambda store, ids: store.set_alias("acme", "sst2", "live", 3), ["alias.move"]),
    "remove_alias": (lambda store, ids: store.remove_alias("acme", "sst2", "canary"), ["alias.remove"]),
    "rollback": (lambda store, ids: store.rollback("acme", "sst2"), ["alias.rollback"]),
    "publish_ensemble": (
        lambda store, ids: store.publish_ensemble("acme", "two", [EnsembleMember("acme", "sst2", 1)]),
        ["ensemble.publish", "ensemble_alias.move"],
    ),
    "delete_ensemble": (
        lambda store, ids: store.delete_ensemble("acme", "team"),
        ["ensemble_alias.remove", "ensemble_alias.remove", "ensemble.unshare", "ensemble.delete"],
    ),
    "set_ensemble_alias": (
        lambda store, ids: store.set_ensemble_alias("acme", "team", "live", 1), ["ensemble_alias.move"],
    ),
    "remove_ensemble_alias": (
        lambda store, ids: store.remove_ensemble_alias("acme", "team", "canary"), ["ensemble_alias.remove"],
    ),
    "rollback_ensemble": (
        lambda store, ids: store.rollback_ensemble("acme", "team"), ["ensemble_alias.rollback"],
    ),
    "publish_pack": (
        lambda store, ids: store.publish_pack("acme", "new", [PackEntry("mood", "acme", "mood", 1)]),
        ["pack.publish", "pack_alias.move"],
    ),
    "delete_pack": (
        lambda store, ids: store.delete_pack("acme", "desk"),
        ["pack_alias.remove", "pack_alias.remove", "pack.unshare", "pack.delete"],
    ),
    "set_pack_alias": (
        lambda store, ids: store.set_pack_alias("acme", "desk", "live", 1), ["pack_alias.move"],
    ),
    "remove_pack_alias": (
        lambda store, ids: store.remove_pack_alias("acme", "desk", "canary"), ["pack_alias.remove"],
    ),
    "rollback_pack": (lambda store, ids: store.rollback_pack("acme", "desk"), ["pack_alias.rollback"]),
    "share": (
        lambda store, ids: store.share("task", "acme", "sst2", "birch", ["infer"]),
        ["task.share", "task.share"],
    ),
    "unshare": (
        lambda store, ids: store.unshare("ensemble", "acme", "team", "*"), ["ensemble.unshare"],
    ),
    "write_file": (lambda store, ids: _write_file(store), ["file.create"]),
    "delete_file": (lambda store, ids: store.delete_file("acme", ids["file"]), ["file.delete"]),
    "create_job": (lambda store, ids: store.create_job("acme", "tuning", SPEC), ["job.create"]),
    "cancel_job": (lambda store, ids: store.cancel_job("acme", ids["job"]), ["job.cancel"]),
    "pause_job": (lambda store, ids: store.pause_job("acme", ids["job"]), ["job.pause"]),
    "resume_job": (lambda store, ids: store.resume_job("acme", ids["stopped"]), ["job.resume"]),
    "create_tenant": (lambda store, ids: store.create_tenant("new"), ["tenant.create"]),
    "ensure_tenant": (lambda store, ids: store.ensure_tenant("new"), ["tenant.create"]),
    "update_tenant": (lambda store, ids: store.update_tenant("acme", weight=2), ["tenant.update"]),
    "suspend_tenant": (lambda store, ids: store.suspend_tenant("acme"), ["tenant.suspend"]),
    "resume_tenant": (lambda store, ids: store.resume_tenant("idle"), ["tenant.resume"]),
    "delete_tenant": (
        lambda store, ids: store.delete_tenant("acme", grace_seconds=1), ["tenant.delete"],
    ),
    "purge_tenants": (
        lambda store, ids: store.purge_tenants(), ["alias.remove", "task.delete", "tenant.purge"],
    ),
    "create_key": (lambda store, ids: store.create_key("acme", "app", scopes=["tune"]), ["key.create"]),
    "update_key": (
        lambda store, ids: store.update_key("acme", ids["key"], tasks=["a-*"]), ["key.update"],
    ),
    "revoke_key": (lambda store, ids: store.revoke_key("acme", ids["key"]), ["key.revoke"]),
    "collect": (lambda store, ids: _collect(store), ["version.delete", "store.collect"]),
    "adopt": (lambda store, ids: store.adopt(), ["store.adopt"]),
    "check": (lambda store, ids: _something_to_repair(store), ["store.repair"]),
    "drop_audit": (lambda store, ids: _drop(store), ["audit.drop"] * 3),
}  # fmt: skip
"""Every operation that changes something, and what the log says of it."""

UNTOLD = {
    # A job's own events tell these, under its lease.
    "claim_job", "renew_lease", "release_job", "update_job", "append_events", "finish_job",
    # Use of a key, no change of it.
    "touch_keys",
    # Fills a store that is empty, log included: see upkeep/test_backups.py.
    "restore",
    # Of what other processes' caches follow, for an hour.
    "drop_changes",
    # What was made of requests is told; that they are remembered is not.
    "drop_creations",
    # Who is signed in to the console; what they change there is told as ever.
    "open_session", "end_session", "drop_sessions",
    # Usage keeps its own log.
    "record_usage", "drop_usage", "drop_usage_of",
    # What processes may spend; usage says what they spent.
    "lease_budgets", "drop_budgets", "drop_budgets_of",
    # Whose turn it is to collect; a collection is told.
    "claim_upkeep", "end_upkeep",
}  # fmt: skip

READS = {
    "acting_for", "creating", "made_before",
    "alias_history", "aliases", "audit_rows", "audited", "backup", "changes_after", "check_readable",
    "check_writable", "close", "ensemble_alias_history", "every_audit_row", "fence_fault",
    "files_seen", "find_key", "find_session", "local_file",
    "get_calibration",
    "get_ensemble", "get_file", "get_job", "get_key", "get_task", "get_tenant", "get_version", "hold",
    "holds_keys",
    "budget_holders", "job_holders",
    "in_memory", "job_events", "jobs_of_other_matrices", "last_change", "last_ensemble_number", "last_number",
    "list_calibrations", "list_ensembles", "list_ensemble_versions", "list_pack_versions", "get_pack",
    "last_pack_number", "list_packs", "pack_alias_history",
    "resolve_pack", "rollbacks",
    "list_files", "list_grants", "list_jobs", "list_keys", "list_shared", "list_tasks", "list_tenants",
    "list_versions", "open", "pairing", "plan_collection", "require_grant", "resolve",
    "resolve_ensemble", "usage", "values", "verify_audit",
    "check_file_room", "check_version_room", "soft_limit", "stored_use", "upkeep_due_at", "was_purged",
}  # fmt: skip


def test_every_public_operation_is_told_or_known_not_to_be() -> None:
    """A new one that changes something has to be added to `WRITES`, and so to the log."""
    public = {name for name, _ in inspect.getmembers(PromptStore, callable) if not name.startswith("_")}
    assert public == WRITES.keys() | UNTOLD | READS
    assert len(public) == len(WRITES) + len(UNTOLD) + len(READS)


@pytest.mark.parametrize("name", sorted(READS - {"check_writable", "open", "in_memory"}))
def test_what_only_reads_takes_no_lock(name: str) -> None:
    assert ".write(" not in inspect.getsource(getattr(PromptStore, name))


@pytest.mark.parametrize("name", WRITES)
def test_every_operation_is_told_with_who_did_it(store: PromptStore, clock: FakeClock, name: str) -> None:
    ids = prepared(store)
    clock.advance(60)
    before = {tenant: len(store.audit_rows(tenant, limit=500)) for tenant in store.audited()}
    operation, actions = WRITES[name]
    operation(store.acting_for(ANN), ids)
    rows = [
        row
        for tenant in store.audited()
        for row in store.every_audit_row(tenant)
        if row.sequence > before.get(tenant, 0)
    ]
    assert sorted(row.action for row in rows) == sorted(actions)
    assert {(row.actor, row.address, row.request_id) for row in rows if row.tenant != "birch"} == {
        (ANN.name, ANN.address, ANN.request_id)
    }
    assert all(store.verify_audit(tenant).clean for tenant in store.audited())


def test_control_an_operation_that_tells_nothing_is_noticed(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "append", lambda *told, **facts: None)
    with pytest.raises(AssertionError):
        test_every_operation_is_told_with_who_did_it(store, clock, "set_alias")


def test_rows_say_what_was_and_what_is(store: PromptStore, clock: FakeClock) -> None:
    begun = clock()
    store.publish("acme", "sst2", *example_prompt(1), created_by="bob")
    clock.advance(1)
    version = store.publish("acme", "sst2", *example_prompt(2)).version
    ann = store.acting_for(ANN)
    ann.set_alias("acme", "sst2", "live", 2)
    ann.remove_alias("acme", "sst2", "live")
    rows = store.audit_rows("acme")
    first, _, second, moved, removed = rows
    assert first == AuditRow(
        "acme", 1, begun, "chorus", "", "", "task.publish", "sst2@1", None, first.after, "0" * 64, first.hash
    )  # fmt: skip
    assert second.after == {
        "digest": version.manifest.digest, "manifest_digest": version.manifest_digest,
    }  # fmt: skip
    assert (moved.before, moved.after, moved.at) == ({"version": 1}, {"version": 2}, clock())
    assert (moved.actor, moved.address, moved.request_id) == (ANN.name, ANN.address, ANN.request_id)
    assert (removed.subject, removed.before, removed.after) == ("sst2@live", {"version": 2}, None)
    assert [row.previous for row in rows[1:]] == [row.hash for row in rows[:-1]]


def test_tenants_and_keys_are_told_with_the_fields_that_changed(store: PromptStore, clock: FakeClock) -> None:
    store.create_tenant("acme", limits=TenantLimits(per_minute=Amounts(requests=1)))
    store.update_tenant("acme", weight=2, limits=TenantLimits(per_minute=Amounts(requests=1)))
    store.delete_tenant("acme", grace_seconds=60)
    made, updated, deleted = store.audit_rows("acme")
    assert made.after is not None and made.after["limits"] == {"per_minute": {"requests": 1}}
    assert (updated.before, updated.after) == ({"weight": 1.0}, {"weight": 2.0})
    assert deleted.after == {
        "status": "deleted",
        "deleted_at": "2026-01-01T00:00:00.000000Z",
        "purge_after": "2026-01-01T00:01:00.000000Z",
    }


def test_what_changes_nothing_is_not_told(store: PromptStore) -> None:
    ids = prepared(store)
    before = told(store)
    store.publish("acme", "sst2", *example_prompt(1))
    store.set_alias("acme", "sst2", "live", 2)
    store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1)])
    store.update_tenant("acme", weight=1.0)
    store.resume_tenant("acme")
    store.share("ensemble", "acme", "team", "*", ["read"])
    store.ensure_tenant("acme")
    store.update_key("acme", ids["key"], scopes=["infer"])
    store.collect(grace_seconds=0)
    store.check(repair=True)
    assert told(store) == before and told(store, OF_THE_STORE) == []


FAILING: list[Callable[[PromptStore, dict[str, Any]], object]] = [
    lambda store, ids: store.set_alias("acme", "sst2", "live", 9),
    lambda store, ids: store.delete_task("acme", "sst2"),
    lambda store, ids: store.delete_version("acme", "sst2", 2),
    lambda store, ids: store.publish("gone", "sst2", *example_prompt(4)),
    lambda store, ids: store.create_tenant("acme"),
    lambda store, ids: store.create_job("acme", "tuning", SPEC, max_unfinished=1),
    lambda store, ids: store.cancel_job("acme", ids["stopped"]),
]


@pytest.mark.parametrize("operation", FAILING)
def test_what_is_refused_is_not_told(
    store: PromptStore, operation: Callable[[PromptStore, dict[str, Any]], object]
) -> None:
    ids = prepared(store)
    before = told(store), told(store, "gone")
    with pytest.raises(StoreError):
        operation(store, ids)
    assert (told(store), told(store, "gone")) == before


def test_a_change_whose_row_cannot_be_written_is_not_made(
    store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(store)
    before = told(store)

    def fails(*told: Any, **facts: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chain, "append", fails)
        for operation, _ in (WRITES["set_alias"], WRITES["create_key"]):
            with pytest.raises(KeyboardInterrupt):
                operation(store, {})
    assert told(store) == before
    assert store.aliases("acme", "sst2")["live"] == 2 and len(store.list_keys("acme").items) == 1


CANARY = "canary-7d1f"


def test_no_row_has_content_or_a_secret(store: PromptStore) -> None:
    values, manifest = example_prompt(1)
    manifest = replace(manifest, template=CANARY + "{text}", labels=(CANARY,), settings={"stop": [CANARY]})
    store.create_tenant("acme")
    store.publish(
        "acme", "sst2", values, manifest, description=CANARY, lineage={CANARY: CANARY}, created_by=CANARY
    )
    with store.write_file("acme", "rows.csv", max_bytes=99) as writer:
        writer.write(CANARY.encode())
        file = writer.commit()
    job = store.create_job("acme", "tuning", {**SPEC, "text": CANARY}, files={"f": file.id})
    store.cancel_job("acme", job.id)
    key, secret = store.create_key("acme", "app", scopes=["infer"])
    store.revoke_key("acme", key.id)
    store.delete_task("acme", "sst2")
    text = json.dumps([chain.row_facts(row) for row in store.every_audit_row("acme")])
    assert CANARY not in text and secret not in text and secret[12:44] not in text
    assert key.public in text, "the control: what may be shown is there"


def test_rows_are_read_in_parts_and_by_what_they_say(store: PromptStore, clock: FakeClock) -> None:
    ann = store.acting_for(ANN)
    store.create_tenant("acme")
    for weight in range(2, 7):
        clock.advance(10)
        (ann if weight % 2 else store).update_tenant("acme", weight=weight)
    assert [row.sequence for row in store.audit_rows("acme", after=2, limit=3)] == [3, 4, 5]
    assert store.audit_rows("acme", after=6) == [] and store.audit_rows("birch") == []

    def those(**which: Any) -> list[int]:
        return [row.sequence for row in store.audit_rows("acme", which=AuditFilter(**which))]

    assert those(actor=ANN.name) == [3, 5] and those(action="tenant.create") == [1]
    assert those(actor="chorus", action="tenant.update") == [2, 4, 6]
    assert those(subject="") == [1, 2, 3, 4, 5, 6] and those(subject="x") == []
    begun = clock() - timedelta(seconds=50)
    assert those(since=begun + timedelta(seconds=20)) == [3, 4, 5, 6]
    assert those(since=begun, until=begun + timedelta(seconds=20)) == [1, 2]
    exported = list(store.every_audit_row("acme", AuditFilter(action="tenant.update")))
    assert [row.sequence for row in exported] == [2, 3, 4, 5, 6]
    for wrong in (-1, True, 1.0, "1", 2**63):
        with pytest.raises(InvalidError):
            store.audit_rows("acme", after=wrong)  # type: ignore[arg-type]
    for which in ({"since": datetime(2026, 1, 1)}, {"until": "now"}, {"actor": "\0"}, {"action": "x" * 300}):
        with pytest.raises(InvalidError):
            those(**which)
    with pytest.raises(InvalidError):
        store.audit_rows("Acme")
    with pytest.raises(InvalidError):
        store.audit_rows("acme", limit=501)


def test_all_rows_are_exported_however_many(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prompts_store.audit.audit_log.MAX_LIMIT", 3)
    store.create_tenant("acme")
    for weight in range(2, 9):
        store.update_tenant("acme", weight=weight)
    assert [row.sequence for row in store.every_audit_row("acme")] == list(range(1, 9))


def test_a_view_is_the_same_store(store: PromptStore) -> None:
    ann = store.acting_for(ANN)
    file = example_file(ann, b"rows")
    assert file_bytes(store, "acme", file.id) == b"rows"
    assert ann.acting_for(CHORUS).get_file("acme", file.id) == file
    version = ann.publish("acme", "sst2", *example_prompt(1)).version
    with ann.hold(version):
        store.delete_task("acme", "sst2")
        assert store.collect(grace_seconds=0).held == 1, "what one reads, the other does not collect"
    for wrong in (Actor("a\0"), Actor("a" * 257), Actor("a", "b" * 65), Actor("a", "b", "\ud800")):
        with pytest.raises(InvalidError):
            store.acting_for(wrong)


EACH = 15


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_that_append_at_once_make_one_chain(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_server").emptied() if database == "postgresql" else None
    with writing_processes(tmp_path, url) as writers:
        writers[0].create_tenant("acme")
        begin = threading.Barrier(WRITERS)
        failed: list[BaseException] = []

        def write(number: int) -> None:
            store = writers[number].acting_for(Actor(f"writer-{number}"))
            try:
                begin.wait()
                for weight in range(EACH):
                    store.update_tenant("acme", weight=2 + weight * WRITERS + number)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        report = writers[0].verify_audit("acme")
        assert report.clean and report.rows == 1 + WRITERS * EACH
        for number in range(WRITERS):
            which = AuditFilter(actor=f"writer-{number}")
            assert len(list(writers[0].every_audit_row("acme", which))) == EACH


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "control"])
def test_the_head_is_locked_while_a_row_is_appended(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Also for who writes without the publish lock. Without the head's, the second gets the first one's
    number, and its transaction fails."""
    url = postgres_server.emptied("chorus")
    if not locked:
        plain = chain._HEAD.with_for_update(read=False)
        plain._for_update_arg = None
        monkeypatch.setattr(chain, "_HEAD", plain)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:")).execution_options(
        **{database._ACTOR_OPTION: CHORUS}
    )
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        store.create_tenant("acme")
        now = store._clock()
        failed: list[BaseException] = []

        def second() -> None:
            try:
                with engine.begin() as connection:
                    chain.append(connection, "tenant.update", "acme", now=now)
            except IntegrityError as error:
                failed.append(error)

        with engine.begin() as first:
            chain.append(first, "tenant.update", "acme", now=now)
            thread = threading.Thread(target=second)
            thread.start()
            with engine.connect() as observer:
                while not observer.exec_driver_sql(WAITING_FOR_ROWS).scalar():
                    observer.rollback()
        thread.join()
        engine.dispose()
        assert bool(failed) is not locked
        assert store.verify_audit("acme").clean
        assert len(store.audit_rows("acme")) == (3 if locked else 2)
