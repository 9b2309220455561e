"""Tenants and keys against a model of plain dictionaries: any order of any operations, two stores on one
database, and a reader of the change feed that misses nothing.
"""

import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import ConflictError, NotFoundError, StoreError
from prompts_store.tenants import feed
from prompts_store.tenants.key_format import matches, public_part
from prompts_store.testing import FakeClock, example_prompt
from tests.postgres_server import PostgresServer
from tests.properties.machine_settings import machine_settings

TENANTS = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["app", "batch"])
SIDES, PICKS = st.integers(0, 1), st.integers(0, 9)
PROMPT = example_prompt(1, length=1, width=2)


@dataclass
class ModelTenant:
    """A tenant, kept when it is deleted."""

    status: str = "active"
    weight: float = 1.0
    purge_after: datetime | None = None
    has_task: bool = False
    # Of its task, by grantee.
    grants: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class ModelKey:
    """A key, kept when it is over."""

    tenant: str
    name: str
    id: str
    secret: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked: bool = False
    used: datetime | None = None

    def live(self, now: datetime) -> bool:
        return not self.revoked and (self.expires_at is None or self.expires_at > now)


@dataclass
class Model:
    """What everybody should see, and all that was ever told."""

    tenants: dict[str, ModelTenant] = field(default_factory=dict)
    keys: list[ModelKey] = field(default_factory=list)
    told: list[tuple[str, str, str, datetime]] = field(default_factory=list)
    dropped: int = 0

    def rights(self, owner: str, asker: str) -> set[str]:
        """What a tenant may do with another's task now."""
        model = self.tenants.get(owner)
        if model is None or owner == asker or model.status != "active":
            return set()
        return model.grants.get(asker, set()) | model.grants.get("*", set())

    def there(self, name: str) -> ModelTenant | None:
        found = self.tenants.get(name)
        return found if found is not None and found.status != "deleted" else None


class TenantsMachine(RuleBasedStateMachine):
    """Rules are operations; every answer is compared where it is given, and the whole state after each."""

    on_disk = True
    url: str | None = None
    store_type = PromptStore

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.model = Model()
        self.folder = tempfile.TemporaryDirectory()
        self.stores: list[PromptStore] = []
        self.read = 0

    def prepare(self) -> None:
        """What an example needs before its first store."""

    @initialize()
    def open(self) -> None:
        self.prepare()
        self.restart()
        # Otherwise few runs come as far as a key that is revoked and used.
        self.create("a", 0)
        self.create_key("a", "app", {"infer"}, None, 0)

    def restart(self) -> None:
        self.close()
        if self.on_disk:
            folder = Path(self.folder.name)
            self.stores = [
                PromptStore.open(folder, database_url=self.url, clock=self.clock) for _ in range(2)
            ]
        else:
            one = self.store_type.in_memory(clock=self.clock)
            self.stores = [one, self.store_type(one._database, one._blobs, self.clock)]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    def tell(self, kind: str, tenant: str, subject: str = "") -> None:
        self.model.told.append((kind, tenant, subject, self.clock()))

    @rule(tenant=TENANTS, side=SIDES)
    def create(self, tenant: str, side: int) -> None:
        if tenant in self.model.tenants:
            with pytest.raises(ConflictError):
                self.stores[side].create_tenant(tenant)
            return
        assert self.stores[side].create_tenant(tenant).name == tenant
        self.model.tenants[tenant] = ModelTenant()
        self.tell("tenant_created", tenant)

    @rule(tenant=TENANTS, side=SIDES)
    def ensure(self, tenant: str, side: int) -> None:
        if tenant not in self.model.tenants:
            self.model.tenants[tenant] = ModelTenant()
            self.tell("tenant_created", tenant)
        elif self.model.there(tenant) is None:
            with pytest.raises(NotFoundError):
                self.stores[side].ensure_tenant(tenant)
            return
        assert self.stores[side].ensure_tenant(tenant).status == self.model.tenants[tenant].status

    @rule(tenant=TENANTS, weight=st.sampled_from([1.0, 2.0, 3.0]), side=SIDES)
    def update(self, tenant: str, weight: float, side: int) -> None:
        model = self.model.there(tenant)
        if model is None:
            with pytest.raises(NotFoundError):
                self.stores[side].update_tenant(tenant, weight=weight)
            return
        assert self.stores[side].update_tenant(tenant, weight=weight).weight == weight
        if model.weight != weight:
            model.weight = weight
            self.tell("tenant_updated", tenant)

    @rule(tenant=TENANTS, suspend=st.booleans(), side=SIDES)
    def suspend_or_resume(self, tenant: str, suspend: bool, side: int) -> None:
        model, store = self.model.there(tenant), self.stores[side]
        call = store.suspend_tenant if suspend else store.resume_tenant
        if model is None:
            with pytest.raises(NotFoundError):
                call(tenant)
            return
        wanted = "suspended" if suspend else "active"
        assert call(tenant).status == wanted
        if model.status != wanted:
            model.status = wanted
            self.tell("tenant_suspended" if suspend else "tenant_resumed", tenant)

    @rule(tenant=TENANTS, seconds=st.sampled_from([0, 60]), side=SIDES)
    def delete(self, tenant: str, seconds: int, side: int) -> None:
        model = self.model.there(tenant)
        if model is None:
            with pytest.raises(NotFoundError):
                self.stores[side].delete_tenant(tenant, grace_seconds=seconds)
            return
        model.status, model.purge_after = "deleted", self.clock() + timedelta(seconds=seconds)
        gone = self.stores[side].delete_tenant(tenant, grace_seconds=seconds)
        assert gone.purge_after == model.purge_after
        self.tell("tenant_deleted", tenant)

    @rule(side=SIDES)
    def purge(self, side: int) -> None:
        due = [
            name
            for name, model in sorted(self.model.tenants.items())
            if model.purge_after is not None and model.purge_after <= self.clock()
        ]
        report = self.stores[side].purge_tenants()
        assert (report.purged, report.waiting) == (due, [])
        # Of those that are purged before it, the grants went with the tasks.
        assert report.grants <= sum(
            name in other.grants for name in due for other in self.model.tenants.values()
        )
        for name in due:
            model = self.model.tenants[name]
            if model.has_task:
                self.tell("alias_removed", name, "task@live")
                self.tell("task_deleted", name, "task")
            model.has_task, model.purge_after = False, None
            model.grants.clear()
            for other in self.model.tenants.values():
                other.grants.pop(name, None)
            self.tell("tenant_purged", name)

    @rule(tenant=TENANTS, side=SIDES)
    def publish(self, tenant: str, side: int) -> None:
        """By no deleted tenant, unless nothing new would be made."""
        model = self.model.tenants.get(tenant)
        if model is None:
            return
        if model.status == "deleted" and not model.has_task:
            with pytest.raises(NotFoundError):
                self.stores[side].publish(tenant, "task", *PROMPT)
            return
        assert self.stores[side].publish(tenant, "task", *PROMPT).created != model.has_task
        if not model.has_task:
            model.has_task = True
            self.tell("alias_moved", tenant, "task@live")

    @rule(
        tenant=TENANTS,
        grantee=st.sampled_from(["a", "b", "c", "*"]),
        rights=st.sets(st.sampled_from(["infer", "read"])),
        side=SIDES,
    )
    def share(self, tenant: str, grantee: str, rights: Any, side: int) -> None:
        """Without rights, revoke."""
        model, store = self.model.tenants.get(tenant), self.stores[side]
        if grantee == tenant:
            return
        there = model is not None and model.has_task
        if rights and not (there and self.model.there(tenant)):
            with pytest.raises(NotFoundError):
                store.share("task", tenant, "task", grantee, rights)
        elif rights:
            assert model is not None
            assert set(store.share("task", tenant, "task", grantee, rights).rights) == rights
            if model.grants.get(grantee) != rights:
                self.tell("task_shared", tenant, "task")
            model.grants[grantee] = rights
        elif model is None or not there or grantee not in model.grants:
            with pytest.raises(NotFoundError):
                store.unshare("task", tenant, "task", grantee)
        else:
            store.unshare("task", tenant, "task", grantee)
            del model.grants[grantee]
            self.tell("task_unshared", tenant, "task")

    @rule(tenant=TENANTS, side=SIDES)
    def unpublish(self, tenant: str, side: int) -> None:
        """Its grants go with it."""
        model = self.model.tenants.get(tenant)
        if model is None or not model.has_task:
            with pytest.raises(NotFoundError):
                self.stores[side].delete_task(tenant, "task")
            return
        self.stores[side].delete_task(tenant, "task")
        model.has_task = False
        model.grants.clear()
        self.tell("alias_removed", tenant, "task@live")
        self.tell("task_deleted", tenant, "task")

    @rule(owner=TENANTS, asker=TENANTS, right=st.sampled_from(["infer", "read"]), side=SIDES)
    def ask_anothers(self, owner: str, asker: str, right: Any, side: int) -> None:
        if owner == asker:
            return
        ask = partial(self.stores[side].resolve, f"{owner}/task", tenant=asker, right=right)
        if right in self.model.rights(owner, asker):
            assert ask().tenant == owner
        else:
            with pytest.raises(NotFoundError) as caught:
                ask()
            assert caught.value.code == "unknown_task"

    @rule(
        tenant=TENANTS,
        name=NAMES,
        scopes=st.sets(st.sampled_from(["infer", "tune", "admin"]), min_size=1),
        seconds=st.sampled_from([None, 30, 300]),
        side=SIDES,
    )
    def create_key(self, tenant: str, name: str, scopes: Any, seconds: int | None, side: int) -> None:
        now = self.clock()
        expires_at = None if seconds is None else now + timedelta(seconds=seconds)
        live = [k for k in self.model.keys if (k.tenant, k.name) == (tenant, name) and k.live(now)]
        refused = (
            NotFoundError if self.model.there(tenant) is None else ConflictError if len(live) == 2 else None
        )
        arguments: dict[str, Any] = {"scopes": sorted(scopes), "expires_at": expires_at}
        if refused is not None:
            with pytest.raises(refused):
                self.stores[side].create_key(tenant, name, **arguments)
            return
        key, secret = self.stores[side].create_key(tenant, name, **arguments)
        assert public_part(secret) == key.public
        self.model.keys.append(ModelKey(tenant, name, key.id, secret, key.scopes, expires_at))
        assert set(key.scopes) == scopes
        self.tell("key_created", tenant, key.public)

    def pick(self, pick: int) -> ModelKey | None:
        return self.model.keys[pick % len(self.model.keys)] if self.model.keys else None

    @rule(pick=PICKS, side=SIDES)
    def revoke_key(self, pick: int, side: int) -> None:
        key = self.pick(pick)
        if key is None:
            return
        if self.model.there(key.tenant) is None:
            with pytest.raises(NotFoundError):
                self.stores[side].revoke_key(key.tenant, key.id)
            return
        assert self.stores[side].revoke_key(key.tenant, key.id).revoked_at is not None
        if not key.revoked:
            key.revoked = True
            self.tell("key_revoked", key.tenant, str(public_part(key.secret)))

    @rule(pick=PICKS, scope=st.sampled_from(["infer", "tune"]), side=SIDES)
    def update_key(self, pick: int, scope: Any, side: int) -> None:
        key = self.pick(pick)
        if key is None:
            return
        gone = self.model.there(key.tenant) is None
        if gone or not key.live(self.clock()):
            with pytest.raises(NotFoundError if gone else ConflictError):
                self.stores[side].update_key(key.tenant, key.id, scopes=[scope])
            return
        assert self.stores[side].update_key(key.tenant, key.id, scopes=[scope]).scopes == (scope,)
        if key.scopes != (scope,):
            key.scopes = (scope,)
            self.tell("key_updated", key.tenant, str(public_part(key.secret)))

    @rule(pick=PICKS, back=st.sampled_from([0, 0, 120]), side=SIDES)
    def touch(self, pick: int, back: int, side: int) -> None:
        key = self.pick(pick)
        if key is None:
            return
        moment = self.clock() - timedelta(seconds=back)
        self.stores[side].touch_keys({key.id: moment})
        minute = moment.replace(second=0, microsecond=0)
        key.used = minute if key.used is None else max(key.used, minute)

    @rule(seconds=st.sampled_from([1, 45, 400]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(side=SIDES)
    def drop_changes(self, side: int) -> None:
        """Those older than five minutes, but never the newest."""
        before = self.clock() - timedelta(seconds=300)
        old = sum(at < before for *_, at in self.model.told)
        kept_from = max(self.model.dropped, min(old, len(self.model.told) - 1))
        assert self.stores[side].drop_changes(before) == kept_from - self.model.dropped
        self.model.dropped = kept_from

    @rule(limit=st.integers(1, 5), side=SIDES)
    def read_the_feed(self, limit: int, side: int) -> None:
        """A reader that comes now and then."""
        found = self.stores[side].changes_after(self.read, limit)
        told = self.model.told
        assert found.behind == (self.read < self.model.dropped)
        if found.behind:
            assert found.items == () and found.last == len(told)
        else:
            expected = told[self.read : self.read + limit]
            assert [(c.kind, c.tenant, c.subject, c.at) for c in found.items] == expected
            assert [c.number for c in found.items] == list(range(self.read + 1, found.last + 1))
        self.read = found.last

    @rule()
    def restart_all(self) -> None:
        if self.on_disk:
            self.restart()

    @invariant()
    def both_stores_say_what_the_model_says(self) -> None:
        for store in self.stores:
            listed = {each.name: (each.status, each.weight) for each in store.list_tenants().items}
            assert listed == {
                name: (model.status, model.weight)
                for name, model in self.model.tenants.items()
                if model.status != "deleted"
            }
            gone = {each.name: each.purge_after for each in store.list_tenants(status="deleted").items}
            assert gone == {
                name: model.purge_after
                for name, model in self.model.tenants.items()
                if model.status == "deleted"
            }
            for name in listed:
                ids = [key.id for key in store.list_keys(name).items]
                assert ids == [key.id for key in reversed(self.model.keys) if key.tenant == name]
            for key in self.model.keys:
                self._check_key(store, key)
            for name, model in self.model.tenants.items():
                assert len(store.list_tasks(name).items) == model.has_task
                shared = {item.tenant: set(item.rights) for item in store.list_shared(name).items}
                expected = {owner: self.model.rights(owner, name) for owner in self.model.tenants}
                assert shared == {owner: rights for owner, rights in expected.items() if rights}
            assert store.last_change() == len(self.model.told)

    def _check_key(self, store: PromptStore, key: ModelKey) -> None:
        found = store.find_key(str(public_part(key.secret)))
        tenant = self.model.tenants[key.tenant]
        if tenant.status == "deleted" and tenant.purge_after is None:
            assert found is None, "it went with the purge"
            return
        assert found is not None and matches(key.secret, found.digest)
        assert (found.key.tenant, found.key.id, found.key.scopes) == (key.tenant, key.id, key.scopes)
        assert found.key.is_live(self.clock()) == key.live(self.clock())
        assert found.key.last_used_at == key.used
        assert (found.status, found.weight) == (tenant.status, tenant.weight)

    def teardown(self) -> None:
        try:
            if self.stores:
                assert self.stores[0].check().clean
        finally:
            self.close()
            self.folder.cleanup()


class InMemoryMachine(TenantsMachine):
    """The same on the store's in-memory form."""

    on_disk = False


def test_tenants_are_the_model_on_disk() -> None:
    run_state_machine_as_test(TenantsMachine, settings=machine_settings(12, 40))


def test_tenants_are_the_model_in_memory() -> None:
    run_state_machine_as_test(InMemoryMachine, settings=machine_settings(25, 40))


def test_tenants_are_the_model_on_postgresql(postgres_server: PostgresServer) -> None:
    class OnPostgres(TenantsMachine):
        def prepare(self) -> None:
            self.url = postgres_server.emptied()

    run_state_machine_as_test(OnPostgres, settings=machine_settings(6, 40))


class ForgettingStore(PromptStore):
    """A broken store: forgets every change but the newest, and says nothing of it."""

    def drop_changes(self, before: datetime) -> int:
        return super().drop_changes(self._clock())


class ForgivingStore(PromptStore):
    """A broken store: a revoked key lives again when it is used."""

    def touch_keys(self, used: Any) -> None:
        super().touch_keys(used)
        with self._database.write(EVERY_TENANT) as connection:
            connection.exec_driver_sql("UPDATE keys SET revoked_at = NULL")


class SilentStore(PromptStore):
    """A broken store: a suspension is told to nobody."""

    def suspend_tenant(self, name: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feed, "record", lambda *told, **now: None)
            return super().suspend_tenant(name)


class GenerousStore(PromptStore):
    """A broken store: whoever was granted something has it for ever."""

    def unshare(self, *which: Any) -> None:
        before = self.list_grants(*which[:3])
        super().unshare(*which)
        for grant in before:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(feed, "record", lambda *told, **now: None)
                self.share(*which[:3], grant.grantee, grant.rights)


@pytest.mark.parametrize("broken", [ForgettingStore, ForgivingStore, SilentStore, GenerousStore])
def test_control_a_broken_store_is_noticed(broken: type[PromptStore]) -> None:
    class BrokenMachine(InMemoryMachine):
        store_type = broken

    with pytest.raises((AssertionError, StoreError)):
        run_state_machine_as_test(
            BrokenMachine, settings=settings(machine_settings(100, 40), phases=[Phase.generate])
        )
