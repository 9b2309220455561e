from datetime import timedelta
from typing import Any

import pytest

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.tenants.limits import Amounts, KeyLimits, TenantLimits
from prompts_store.tenants.records import Retention, Tenant
from prompts_store.testing import FakeClock, example_file, example_prompt

SPEC = {"base_fingerprint": "base"}


def kinds(store: PromptStore, after: int = 0) -> list[tuple[str, str]]:
    return [(change.kind, change.tenant) for change in store.changes_after(after).items]


def test_a_new_tenant(store: PromptStore, clock: FakeClock) -> None:
    made = store.create_tenant(
        "acme",
        display_name="Acme & Söhne",
        weight=2,
        limits=TenantLimits(per_minute=Amounts(requests=60)),
        retention=Retention(usage_days=90),
        created_by="ann",
    )
    assert made == Tenant(
        name="acme",
        display_name="Acme & Söhne",
        weight=2.0,
        status="active",
        limits=TenantLimits(per_minute=Amounts(requests=60)),
        retention=Retention(90, None),
        created_at=clock(),
        created_by="ann",
    )
    assert store.get_tenant("acme") == made
    assert kinds(store) == [("tenant_created", "acme")]


def test_a_name_is_given_once(store: PromptStore) -> None:
    store.create_tenant("acme")
    store.create_tenant("gone")
    store.delete_tenant("gone", grace_seconds=0)
    store.purge_tenants()
    for name in ("acme", "gone"):
        with pytest.raises(ConflictError) as caught:
            store.create_tenant(name)
        assert (caught.value.code, caught.value.field) == ("tenant_exists", "tenant")
    with pytest.raises(NotFoundError):
        store.ensure_tenant("gone")


def test_ensuring_a_tenant_makes_it_once(store: PromptStore) -> None:
    made = store.ensure_tenant("acme", created_by="settings")
    assert made.status == "active" and made.created_by == "settings"
    store.update_tenant("acme", weight=3)
    assert store.ensure_tenant("acme").weight == 3
    assert kinds(store) == [("tenant_created", "acme"), ("tenant_updated", "acme")]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"display_name": "a\nb"}, "display_name"),
        ({"display_name": "x" * 257}, "display_name"),
        ({"weight": 0}, "weight"),
        ({"weight": -1.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"weight": True}, "weight"),
        ({"retention": Retention(usage_days=0)}, "retention.usage_days"),
        ({"retention": Retention(audit_days=1.5)}, "retention.audit_days"),  # type: ignore[arg-type]
    ],
)
def test_what_no_tenant_can_be_is_refused(store: PromptStore, values: dict[str, Any], field: str) -> None:
    store.create_tenant("acme")
    last = store.last_change()
    for change in (
        lambda: store.create_tenant("new", **values),
        lambda: store.update_tenant("acme", **values),
    ):
        with pytest.raises(InvalidError) as caught:
            change()
        assert caught.value.field == field
    assert store.last_change() == last


def test_an_update_changes_what_is_given_and_nothing_else(store: PromptStore) -> None:
    before = store.create_tenant(
        "acme",
        display_name="Acme",
        limits=TenantLimits(per_minute=Amounts(requests=1)),
        retention=Retention(1, 2),
    )
    assert store.update_tenant("acme") == before
    assert store.update_tenant("acme", display_name="Acme", weight=1.0) == before
    assert kinds(store) == [("tenant_created", "acme")], "what is so already is no change"
    after = store.update_tenant("acme", limits=TenantLimits(), retention=Retention(None, 2))
    assert after == store.get_tenant("acme")
    assert (after.display_name, after.limits, after.retention) == ("Acme", TenantLimits(), Retention(None, 2))
    assert kinds(store, 1) == [("tenant_updated", "acme")]


def test_suspending_and_resuming(store: PromptStore, clock: FakeClock) -> None:
    before = store.create_tenant("acme")
    clock.advance(5)
    for _ in range(2):
        suspended = store.suspend_tenant("acme")
        assert (suspended.status, suspended.suspended_at) == (
            "suspended",
            before.created_at + timedelta(seconds=5),
        )
        clock.advance(5)
    for _ in range(2):
        assert store.resume_tenant("acme") == before
    assert kinds(store, 1) == [("tenant_suspended", "acme"), ("tenant_resumed", "acme")], "each once"


def test_jobs_of_a_stopped_tenant_wait(store: PromptStore) -> None:
    store.create_tenant("acme")
    job = store.create_job("acme", "tuning", SPEC)
    store.suspend_tenant("acme")
    assert store.claim_job("tuning", "worker", 60, "base") is None
    other = store.create_job("no-row", "tuning", SPEC)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None and claimed[0].id == other.id
    store.resume_tenant("acme")
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None and claimed[0].id == job.id


def test_a_deleted_tenant_is_as_one_that_is_not_there(store: PromptStore, clock: FakeClock) -> None:
    store.create_tenant("acme")
    key, _ = store.create_key("acme", "app", scopes=["infer"])
    gone = store.delete_tenant("acme", grace_seconds=3600)
    assert (gone.status, gone.deleted_at) == ("deleted", clock())
    assert gone.purge_after == clock() + timedelta(hours=1)
    calls = (
        lambda tenant: store.get_tenant(tenant),
        lambda tenant: store.update_tenant(tenant, weight=2),
        lambda tenant: store.suspend_tenant(tenant),
        lambda tenant: store.resume_tenant(tenant),
        lambda tenant: store.delete_tenant(tenant, grace_seconds=0),
        lambda tenant: store.create_key(tenant, "app", scopes=["infer"]),
        lambda tenant: store.get_key(tenant, key.id),
        lambda tenant: store.list_keys(tenant),
        lambda tenant: store.update_key(tenant, key.id, limits=KeyLimits(per_minute=Amounts(requests=1))),
        lambda tenant: store.revoke_key(tenant, key.id),
    )
    for call in calls:
        told = []
        for tenant in ("acme", "none"):
            with pytest.raises(NotFoundError) as caught:
                call(tenant)
            told.append((caught.value.code, caught.value.field, caught.value.message.replace(tenant, "X")))
        assert told[0] == told[1] and told[0][:2] == ("unknown_tenant", "tenant")
    found = store.find_key(key.public)
    assert found is not None and found.status == "deleted", "who authenticates is told"
    assert store.list_tenants().items == ()
    assert store.list_tenants(status="deleted").items == (gone,)


def test_nothing_new_is_made_in_a_deleted_tenant(store: PromptStore) -> None:
    store.create_tenant("acme")
    store.publish("acme", "sst2", *example_prompt(1))
    job = store.create_job("acme", "tuning", SPEC)
    store.cancel_job("acme", job.id)
    store.delete_tenant("acme", grace_seconds=0)
    for make in (
        lambda: store.publish("acme", "sst2", *example_prompt(2)),
        lambda: store.publish("acme", "new", *example_prompt(2)),
        lambda: example_file(store, b"rows"),
        lambda: store.create_job("acme", "tuning", SPEC),
        lambda: store.resume_job("acme", job.id),
    ):
        with pytest.raises(NotFoundError) as caught:
            make()
        assert caught.value.code == "unknown_tenant"
    assert store.check().clean


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e12, True, "7"])
def test_a_grace_period_is_a_number_of_seconds(store: PromptStore, seconds: Any) -> None:
    store.create_tenant("acme")
    with pytest.raises(InvalidError) as caught:
        store.delete_tenant("acme", grace_seconds=seconds)
    assert caught.value.field == "grace_seconds"
    assert store.get_tenant("acme").status == "active"


def test_lists_are_by_name_in_pages(store: PromptStore) -> None:
    for name in ("b-2", "a", "b-1", "c", "b.0"):
        store.create_tenant(name)
    store.suspend_tenant("c")
    store.delete_tenant("b-2", grace_seconds=0)
    first = store.list_tenants(limit=2)
    assert [tenant.name for tenant in first.items] == ["a", "b-1"]
    rest = store.list_tenants(limit=2, cursor=first.next_cursor)
    assert [tenant.name for tenant in rest.items] == ["b.0", "c"] and rest.next_cursor is None
    assert [tenant.name for tenant in store.list_tenants(prefix="b").items] == ["b-1", "b.0"]
    assert [tenant.name for tenant in store.list_tenants(status="suspended").items] == ["c"]
    for wrong in ({"limit": 0}, {"prefix": "A"}, {"status": "gone"}, {"cursor": "x"}):
        with pytest.raises(InvalidError):
            store.list_tenants(**wrong)  # type: ignore[arg-type]
