"""A fault at every step of every operation on tenants and keys: exactly the old state or the new one; and a
purge that died at any step is finished by the next.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from prompts_store import PromptStore
from prompts_store.audit.records import AuditRow
from prompts_store.database.tenant_tables import keys
from prompts_store.records import EnsembleMember
from prompts_store.tenants import keys as keys_module
from prompts_store.tenants.key_format import with_checksum
from prompts_store.tenants.limits import Amounts, KeyLimits, TenantLimits
from prompts_store.testing import FakeClock, Fault, example_file, example_prompt
from prompts_store.upkeep import purging
from tests.faults.store_faults import MAX_STEPS, attempt, faulty_store, sweep

MADE_KEYS = [with_checksum(f"ck_{number:08}_{'s' * 32}") for number in range(4)]


def _prepare(store: PromptStore) -> None:
    """Two tenants, one of them deleted with something of everything, and a key."""
    store.create_tenant("acme")
    store.create_tenant("idle")
    store.suspend_tenant("idle")
    store.create_key("acme", "app", scopes=["infer"])
    store.publish("acme", "lent", *example_prompt(9))
    for grantee in ("idle", "gone", "*"):
        store.share("task", "acme", "lent", grantee, ["infer"])
    store.create_tenant("gone")
    for seed in (1, 2):
        store.publish("gone", f"task-{seed}", *example_prompt(seed, labels=("yes",)))
    store.publish_ensemble("gone", "team", [EnsembleMember("gone", "task-1", 1)])
    store.share("ensemble", "gone", "team", "acme", ["infer"])
    file = example_file(store, b"rows", tenant="gone")
    store.create_job("gone", "tuning", {"base_fingerprint": "base"}, files={"data.train.file": file.id})
    store.delete_tenant("gone", grace_seconds=0)


def _key_id(store: PromptStore) -> str:
    return store.list_keys("acme").items[-1].id


def _visible(store: PromptStore) -> object:
    """Everything that a caller can see, without ids, which are random."""
    there = any(tenant.name == "acme" for tenant in store.list_tenants().items)
    listed = store.list_keys("acme").items if there else ()
    found = [store.find_key(secret[3:11]) for secret in MADE_KEYS]
    return (
        store.list_tenants().items,
        store.list_tenants(status="deleted").items,
        [(key.public, key.name, key.scopes, key.limits, key.revoked_at, key.last_used_at) for key in listed],
        [each and (each.status, each.digest) for each in found],
        store.list_shared("idle").items,
        [
            grant
            for task in store.list_tasks("acme").items
            for grant in store.list_grants("task", "acme", task.name)
        ],
        [(row.action, row.subject) for tenant in ("acme", "idle", "gone") for row in _told(store, tenant)],
        store.list_tasks("gone").items,
        store.list_ensembles("gone").items,
        len(store.list_files("gone").items),
        [job.status for job in store.list_jobs("gone", "tuning").items],
        [
            (change.number, change.kind, change.tenant, change.subject)
            for change in store.changes_after(0).items
        ],
    )


def _told(store: PromptStore, tenant: str) -> list[AuditRow]:
    """What a log has of grants."""
    return [row for row in store.every_audit_row(tenant) if row.action.endswith("share")]


OPERATIONS: dict[str, Callable[[PromptStore], object]] = {
    "create": lambda store: store.create_tenant("new", limits=TenantLimits(per_minute=Amounts(requests=1))),
    "ensure": lambda store: store.ensure_tenant("new"),
    "update": lambda store: store.update_tenant("acme", weight=2.0),
    "suspend": lambda store: store.suspend_tenant("acme"),
    "resume": lambda store: store.resume_tenant("idle"),
    "delete": lambda store: store.delete_tenant("acme", grace_seconds=60),
    "create a key": lambda store: store.create_key("acme", "app", scopes=["tune"]),
    "update a key": lambda store: store.update_key(
        "acme", _key_id(store), limits=KeyLimits(per_minute=Amounts(requests=1))
    ),
    "revoke a key": lambda store: store.revoke_key("acme", _key_id(store)),
    "share": lambda store: store.share("task", "acme", "lent", "new", ["infer"]),
    "change a grant": lambda store: store.share("task", "acme", "lent", "idle", ["read"]),
    "revoke a grant": lambda store: store.unshare("task", "acme", "lent", "idle"),
    "delete what is shared": lambda store: store.delete_task("acme", "lent"),
    "touch keys": lambda store: store.touch_keys({_key_id(store): store._clock()}),
    "drop changes": lambda store: store.drop_changes(store._clock()),
}


@pytest.fixture
def made_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store makes the same keys, in order, so that two of them can be compared."""
    monkeypatch.setattr(keys_module, "_unused_key", _next_key)


def _next_key(connection: Connection) -> str:
    return MADE_KEYS[connection.execute(select(func.count()).select_from(keys)).scalar_one()]


@pytest.mark.parametrize("fault", ["die", "EIO"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_step_leaves_the_old_state_or_the_new(
    tmp_path: Path, name: str, fault: Fault, made_keys: None
) -> None:
    clock = FakeClock()
    with (
        closing(PromptStore.open(tmp_path, clock=clock)) as observer,
        closing(PromptStore.open(tmp_path / "twin", clock=clock)) as twin,
    ):
        _prepare(observer)
        _prepare(twin)
        clock.advance(90)
        old = _visible(observer)
        assert old == _visible(twin)
        OPERATIONS[name](twin)
        new = _visible(twin)
        assert new != old
        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            steps = sweep(
                store,
                files,
                OPERATIONS[name],
                fault,
                look=lambda: _visible(observer),
                old=old,
                new=new,
                again=lambda: None,
            )
        assert steps > 2
        assert observer.check().clean


@pytest.mark.parametrize("fault", ["die", "EIO"])
def test_a_purge_cut_off_at_any_step_is_finished_by_the_next(tmp_path: Path, fault: Fault) -> None:
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path / "prepared", clock=clock)) as store:
        _prepare(store)
    clock.advance(1)
    # A fault that is told undoes what one that kills leaves undone: a third of the steps is enough for it.
    for step in range(1, MAX_STEPS, 1 if fault == "die" else 3):
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "prepared", folder)
        if _purge_cut_off_at(folder, clock, step, fault):
            assert step > 40, "it has steps to be cut off at"
            return
    pytest.fail(f"not finished after {MAX_STEPS} steps")


def _purge_cut_off_at(folder: Path, clock: FakeClock, step: int, fault: Fault) -> bool:
    """Whether a purge came through that fails at a step; the next one leaves all as it should be."""
    with closing(PromptStore.open(folder, clock=clock)) as observer:
        store, files = faulty_store(folder, clock)
        with closing(store):
            finished = attempt(store, files, fault, step, lambda store: store.purge_tenants())
        rest = observer.purge_tenants()
        assert finished <= (rest == purging.PurgeReport())
        assert observer.list_tasks("gone").items == () and observer.list_files("gone").items == ()
        assert observer.list_ensembles("gone").items == ()
        granted = [grant.grantee for grant in observer.list_grants("task", "acme", "lent")]
        assert granted == ["*", "idle"]
        ended = [row.subject for row in _told(observer, "acme") if row.action.endswith("unshare")]
        assert sorted(ended) == ["gone/team", "lent"]
        (gone,) = observer.list_tenants(status="deleted").items
        assert gone.purge_after is None
        told = [change.kind for change in observer.changes_after(0).items]
        assert [told.count(kind) for kind in ("tenant_purged", "task_deleted", "ensemble_deleted")] == [
            1,
            2,
            1,
        ]
        assert observer.check().clean
        return finished


def test_control_a_purge_that_is_marked_before_it_is_done_leaves_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the look whether anything is left, one that was cut off is never gone on with."""
    monkeypatch.setattr(purging, "_has_anything", lambda connection, tenant: False)
    monkeypatch.setattr(purging, "erase", lambda database, tenant: None)
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path, clock=clock)) as store:
        store.create_tenant("gone")
        file = example_file(store, b"rows", tenant="gone")
        store.create_job("gone", "tuning", {"base_fingerprint": "base"}, files={"data.train.file": file.id})
        claimed = store.claim_job("tuning", "worker", 60, "base")
        assert claimed is not None
        store.delete_tenant("gone", grace_seconds=0)
        store.purge_tenants()
        store.finish_job(claimed[1], "cancelled")
        assert store.purge_tenants() == purging.PurgeReport()
        assert store.list_files("gone").items != ()
