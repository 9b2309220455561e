import pytest
from sqlalchemy import select

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import metadata
from prompts_store.errors import NotFoundError
from prompts_store.records import Creation, EnsembleMember, PackEntry
from prompts_store.testing import FakeClock, example_file, example_prompt
from prompts_store.upkeep import purging
from prompts_store.upkeep.purging import PurgeReport

SPEC = {"base_fingerprint": "base"}


def fill(store: PromptStore, tenant: str, seed: int = 0) -> None:
    """Two tasks, an ensemble of them, a pack of one, two files, and a job that waits with one of these."""
    store.create_tenant(tenant)
    for number in (1, 2):
        store.publish(tenant, f"task-{number}", *example_prompt(seed + number, labels=("yes", "no")))
    members = [EnsembleMember(tenant, f"task-{number}", 1) for number in (1, 2)]
    store.publish_ensemble(tenant, "team", members)
    store.publish_pack(tenant, "desk", [PackEntry("mood", tenant, "task-1", 1)])
    example_file(store, f"spare rows {seed}".encode(), tenant=tenant)
    file = example_file(store, f"rows {seed}".encode(), tenant=tenant)
    store.create_job(tenant, "tuning", SPEC, files={"data.train.file": file.id})


def left(store: PromptStore, tenant: str) -> tuple[int, ...]:
    """Tasks, ensembles, packs, files, unfinished jobs."""
    jobs = [job for job in store.list_jobs(tenant, "tuning").items if job.finished_at is None]
    lists = (store.list_tasks, store.list_ensembles, store.list_packs, store.list_files)
    return (*(len(of(tenant).items) for of in lists), len(jobs))


def test_what_a_deleted_tenant_had_goes_after_the_grace_period(store: PromptStore, clock: FakeClock) -> None:
    fill(store, "acme")
    fill(store, "other", 10)
    store.delete_tenant("acme", grace_seconds=60)
    clock.advance(59)
    assert store.purge_tenants() == PurgeReport()
    assert left(store, "acme") == (2, 1, 1, 2, 1)
    clock.advance(1)
    report = store.purge_tenants()
    assert report == PurgeReport(jobs=1, ensembles=1, packs=1, tasks=2, files=2, purged=["acme"])
    assert left(store, "acme") == (0, 0, 0, 0, 0)
    assert left(store, "other") == (2, 1, 1, 2, 1)
    (gone,) = store.list_tenants(status="deleted").items
    assert (gone.name, gone.purge_after) == ("acme", None)
    assert store.changes_after(store.last_change() - 1).items[0].kind == "tenant_purged"
    assert store.purge_tenants() == PurgeReport(), "once"
    clock.advance(60)
    collected = store.collect(grace_seconds=0)
    assert (collected.blobs, collected.files) == (2, 2)
    assert store.check().clean


def test_more_than_a_page_goes(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prompts_store.upkeep.purging.MAX_LIMIT", 2)
    store.create_tenant("acme")
    for number in range(5):
        store.publish("acme", f"task-{number}", *example_prompt(number))
        store.publish_ensemble("acme", f"team-{number}", [EnsembleMember("acme", f"task-{number}", 1)])
        example_file(store, f"rows {number}".encode())
        store.create_job("acme", "tuning", SPEC)
    store.delete_tenant("acme", grace_seconds=0)
    assert store.purge_tenants() == PurgeReport(jobs=5, ensembles=5, tasks=5, files=5, purged=["acme"])


def test_what_was_shared_goes_too_whoever_uses_it(store: PromptStore) -> None:
    fill(store, "acme")
    store.share("task", "acme", "task-1", "other", ["infer"])
    store.publish_ensemble("other", "borrowed", [EnsembleMember("acme", "task-1", 1)])
    store.delete_tenant("acme", grace_seconds=0)
    assert store.purge_tenants() == PurgeReport(
        jobs=1, ensembles=1, packs=1, tasks=2, files=2, purged=["acme"]
    )
    assert left(store, "acme") == (0, 0, 0, 0, 0)
    assert store.list_shared("other").items == ()


def test_grants_to_a_tenant_that_is_no_more_end_and_its_owners_are_told(
    store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_GRANTS_AT_ONCE", 2)
    fill(store, "acme")
    store.create_tenant("gone")
    for kind, name in (("task", "task-1"), ("task", "task-2"), ("ensemble", "team")):
        for grantee in ("gone", "other"):
            store.share(kind, "acme", name, grantee, ["infer"])  # type: ignore[arg-type]
    store.delete_tenant("gone", grace_seconds=0)
    assert store.purge_tenants() == PurgeReport(grants=3, purged=["gone"])
    assert [grant.grantee for grant in store.list_grants("task", "acme", "task-1")] == ["other"]
    told = [row for row in store.audit_rows("acme", limit=500) if row.action.endswith(".unshare")]
    assert [(row.subject, row.before) for row in told] == [
        (name, {"grantee": "gone", "rights": ["infer"]}) for name in ("task-1", "task-2", "team")
    ]


def test_a_job_that_runs_is_told_to_stop_and_its_file_stays_until_then(store: PromptStore) -> None:
    fill(store, "acme")
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    store.delete_tenant("acme", grace_seconds=0)
    assert store.purge_tenants().waiting == ["acme"]
    assert left(store, "acme") == (0, 0, 0, 1, 1)
    assert store.update_job(claimed[1]).cancel_requested
    with pytest.raises(NotFoundError):
        store.publish("acme", "made", *example_prompt(9), lease=claimed[1])
    store.finish_job(claimed[1], "cancelled")
    assert store.purge_tenants() == PurgeReport(files=1, purged=["acme"])


STAYS = {"tenants", "audit", "audit_heads", "changes"}
"""Where a purged tenant still has rows: its name, its log and, for an hour, the change feed."""


def found_in_tables(store: PromptStore, tenant: str) -> set[str]:
    """The tables that have rows of a tenant."""
    with store._database.read(EVERY_TENANT) as connection:
        return {
            table.name
            for table in metadata.sorted_tables
            if "tenant" in table.c
            and connection.execute(select(table).where(table.c.tenant == tenant)).first()
        } | {"tenants"}


def total(store: PromptStore) -> dict[str, int]:
    """Rows of each table that no tenant's name stands in."""
    with store._database.read(EVERY_TENANT) as connection:
        return {
            table.name: len(connection.execute(select(table)).all())
            for table in metadata.sorted_tables
            if "tenant" not in table.c and table.name not in ("tenants", "changes", "blobs")
        }


def lived(store: PromptStore, tenant: str, seed: int) -> None:
    """A tenant that had one of everything, and deleted some of it."""
    fill(store, tenant, seed)
    store.publish(tenant, "task-1", *example_prompt(seed + 3, labels=("yes", "no")))
    for alias in ("canary", "live", "canary"):
        store.set_alias(tenant, "task-1", alias, 2)
        store.rollback(tenant, "task-1") if alias == "live" else None
    store.set_ensemble_alias(tenant, "team", "canary", 1)
    store.publish(tenant, "gone", *example_prompt(seed + 4))
    store.delete_task(tenant, "gone")
    store.create_key(tenant, "app", scopes=["infer"])
    once = store.creating(Creation("key", "app", ("this",)))
    once.create_job(tenant, "tuning", SPEC, training_steps=5)


def test_a_purge_leaves_a_tenants_name_and_its_log(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prompts_store.upkeep.erasing._AT_ONCE", 2)
    lived(store, "other", 10)
    before = total(store)
    lived(store, "acme", 20)
    store.update_tenant("acme", display_name="Acme Ltd")
    assert found_in_tables(store, "acme") > STAYS, "control: there was more"
    assert total(store) != before, "and in the tables that its own refer to"
    rows = len(store.audit_rows("acme", limit=500))
    store.delete_tenant("acme", grace_seconds=0)
    assert not store.was_purged("acme")
    assert store.purge_tenants().purged == ["acme"] and store.was_purged("acme")
    assert found_in_tables(store, "acme") == STAYS
    assert total(store) == before
    (gone,) = store.list_tenants(status="deleted").items
    assert (gone.name, gone.display_name, gone.limits.document()) == ("acme", "", {})
    assert store.verify_audit("acme").clean and len(store.audit_rows("acme", limit=500)) > rows
    clock.advance(2 * 3600)
    store.collect(grace_seconds=3600, allow_mass_removal=True)
    report = store.check()
    assert report.clean and report.orphans == 0, "and no bytes"
    assert left(store, "other") == (2, 1, 1, 2, 2)


def test_what_anothers_deleted_ensemble_names_is_emptied(store: PromptStore) -> None:
    store.create_tenant("acme")
    store.publish("acme", "lent", *example_prompt(1, template="said {text}"), lineage={"by": "ann"})
    store.share("task", "acme", "lent", "other", ["infer"])
    store.publish_ensemble("other", "borrowed", [EnsembleMember("acme", "lent", 1)])
    store.delete_ensemble("other", "borrowed")
    store.delete_tenant("acme", grace_seconds=0)
    assert store.purge_tenants().purged == ["acme"]
    assert found_in_tables(store, "acme") == STAYS | {"tasks"}
    with store._database.read(EVERY_TENANT) as connection:
        (row,) = connection.execute(select(metadata.tables["versions"])).all()
    assert (row.template, row.lineage, row.deleted_at is not None) == ("", {}, True)
    assert store.check().clean


def test_a_purge_that_was_cut_off_goes_on(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lived(store, "acme", 20)
    store.delete_tenant("acme", grace_seconds=0)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr("prompts_store.upkeep.erasing._erase_jobs", _cut_off)
        store.purge_tenants()
    assert not store.was_purged("acme") and store.check().clean
    assert store.purge_tenants().purged == ["acme"]
    assert found_in_tables(store, "acme") == STAYS


def _cut_off(*of: object) -> None:
    raise InterruptedError
