"""The store against a model of plain dictionaries: any order of any operations, two stores on one database.

The model knows nothing of tables: tasks are lists of versions, aliases are stacks. After every step both
agree on everything that a caller can see.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from prompts_store import PromptStore
from prompts_store.blobs import BlobAddress
from prompts_store.errors import ConflictError, NotFoundError, StoreError
from prompts_store.records import EnsembleMember, Published
from prompts_store.testing import FakeClock, example_prompt
from tests.postgres_server import PostgresServer
from tests.properties.machine_settings import machine_settings
from tests.s3_server import S3Server

TASKS = st.sampled_from(["a", "b"])
ALIASES = st.sampled_from(["live", "canary"])
SEEDS = st.integers(1, 3)
# Mostly a live version, the 0 for one that may be none: see `number`.
PICKS = st.integers(0, 5)
SIDES = st.integers(0, 1)
PROMPTS = {seed: example_prompt(seed, length=1, width=2) for seed in (1, 2, 3)}


@dataclass
class ModelTask:
    """A task: seeds by number (None once deleted), and for each alias a stack of what it has meant."""

    alive: bool = False
    versions: list[int | None] = field(default_factory=list)
    stacks: dict[str, list[int]] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    moves: int = 0

    def live(self) -> list[int]:
        return [number for number, seed in enumerate(self.versions, 1) if seed is not None]

    def number(self, pick: int) -> int:
        live = self.live()
        return live[pick % len(live)] if pick and live else max(len(self.versions), 1)


class StoreMachine(RuleBasedStateMachine):
    """Rules are operations; every answer is compared where it is given, and the whole state after each."""

    on_disk = True
    url: str | None = None
    blobs: BlobAddress | None = None
    store_type = PromptStore

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.tasks = {name: ModelTask() for name in ("a", "b")}
        self.ensemble: tuple[str, int] | None = None
        self.ensembles_made = 0
        self.folder = tempfile.TemporaryDirectory()
        self.stores: list[PromptStore] = []

    def prepare(self) -> None:
        """What an example needs before its first store."""

    @initialize()
    def open(self) -> None:
        self.prepare()
        self.restart()

    def restart(self) -> None:
        self.close()
        if self.on_disk:
            folder = Path(self.folder.name)
            self.stores = [
                PromptStore.open(folder, database_url=self.url, blobs=self.blobs, clock=self.clock)
                for _ in range(2)
            ]
        else:
            one = self.store_type.in_memory(clock=self.clock)
            self.stores = [one, self.store_type(one._database, one._blobs, self.clock)]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    @rule(task=TASKS, seed=SEEDS, side=SIDES)
    def publish(self, task: str, seed: int, side: int) -> None:
        model = self.tasks[task]
        published = self.stores[side].publish("acme", task, *PROMPTS[seed])
        if seed in model.versions:
            assert (published.created, published.version.number) == (False, model.versions.index(seed) + 1)
            return
        model.versions.append(seed)
        assert (published.created, published.version.number) == (True, len(model.versions))
        if not model.alive:
            model.alive = True
            self._point(model, "live", len(model.versions))

    @rule(task=TASKS, alias=ALIASES, pick=PICKS, side=SIDES)
    def move(self, task: str, alias: str, pick: int, side: int) -> None:
        model = self.tasks[task]
        number = model.number(pick)
        if number not in model.live():
            with pytest.raises(NotFoundError):
                self.stores[side].set_alias("acme", task, alias, number)
            return
        moved = self.stores[side].set_alias("acme", task, alias, number)
        assert (moved.version, moved.previous) == (number, model.aliases.get(alias))
        self._point(model, alias, number)

    @rule(task=TASKS, alias=ALIASES, side=SIDES)
    def remove(self, task: str, alias: str, side: int) -> None:
        model = self.tasks[task]
        if alias not in model.aliases:
            with pytest.raises(NotFoundError):
                self.stores[side].remove_alias("acme", task, alias)
            return
        assert self.stores[side].remove_alias("acme", task, alias).previous == model.aliases.pop(alias)
        model.moves += 1

    @rule(task=TASKS, alias=ALIASES, side=SIDES)
    def roll_back(self, task: str, alias: str, side: int) -> None:
        model = self.tasks[task]
        if alias not in model.aliases:
            with pytest.raises(NotFoundError):
                self.stores[side].rollback("acme", task, alias)
            return
        stack = list(model.stacks[alias])
        now = stack.pop()
        while stack and (stack[-1] == now or stack[-1] not in model.live()):
            stack.pop()
        assert self.stores[side].rollbacks("acme", task).get(alias) == (stack[-1] if stack else None)
        if not stack:
            with pytest.raises(ConflictError):
                self.stores[side].rollback("acme", task, alias)
            return
        assert self.stores[side].rollback("acme", task, alias).version == stack[-1]
        model.stacks[alias], model.aliases[alias] = stack, stack[-1]
        model.moves += 1

    @rule(task=TASKS, pick=PICKS, side=SIDES)
    def delete_version(self, task: str, pick: int, side: int) -> None:
        model = self.tasks[task]
        number = model.number(pick)
        if number not in model.live():
            with pytest.raises(NotFoundError):
                self.stores[side].delete_version("acme", task, number)
        elif number in model.aliases.values() or self.ensemble == (task, number):
            with pytest.raises(ConflictError):
                self.stores[side].delete_version("acme", task, number)
        else:
            self.stores[side].delete_version("acme", task, number)
            model.versions[number - 1] = None

    @rule(task=TASKS, side=SIDES)
    def delete_task(self, task: str, side: int) -> None:
        model = self.tasks[task]
        if not model.alive:
            with pytest.raises(NotFoundError):
                self.stores[side].delete_task("acme", task)
        elif self.ensemble is not None and self.ensemble[0] == task:
            with pytest.raises(ConflictError):
                self.stores[side].delete_task("acme", task)
        else:
            self.stores[side].delete_task("acme", task)
            model.alive = False
            model.versions = [None] * len(model.versions)
            model.moves += len(model.aliases)
            model.aliases.clear()

    @rule(task=TASKS, pick=PICKS, side=SIDES)
    def make_ensemble(self, task: str, pick: int, side: int) -> None:
        store, number = self.stores[side], self.tasks[task].number(pick)
        if self.ensemble is not None:
            store.delete_ensemble("acme", "team")
            self.ensemble = None
            return
        members = [EnsembleMember("acme", task, number)]
        if number not in self.tasks[task].live():
            with pytest.raises(NotFoundError):
                store.publish_ensemble("acme", "team", members)
            return
        self.ensembles_made += 1
        made, created = store.publish_ensemble("acme", "team", members)
        assert (made.number, created) == (self.ensembles_made, True)
        self.ensemble = (task, number)

    @rule(seconds=st.sampled_from([0, 5, 60]), side=SIDES)
    def collect(self, seconds: int, side: int) -> None:
        self.clock.advance(10)
        report = self.stores[side].collect(grace_seconds=seconds)
        assert (report.orphans, report.temporary_files, report.held) == (0, 0, 0)
        assert self.stores[side].check().clean

    @rule()
    def restart_all(self) -> None:
        if self.on_disk:
            self.restart()

    @invariant()
    def both_stores_say_what_the_model_says(self) -> None:
        for store in self.stores:
            listed = {task.name: task for task in store.list_tasks("acme").items}
            assert sorted(listed) == sorted(name for name, model in self.tasks.items() if model.alive)
            for name, record in listed.items():
                model = self.tasks[name]
                live = model.live()
                assert (record.versions, record.latest) == (len(live), max(live, default=0))
                assert record.aliases == model.aliases
                versions = store.list_versions("acme", name).items
                assert [version.number for version in versions] == sorted(live, reverse=True)
                assert len(store.alias_history("acme", name, limit=500).items) == model.moves
                for version in versions:
                    seed = model.versions[version.number - 1]
                    assert seed is not None and version.manifest == PROMPTS[seed][1]
                    assert store.values(version.manifest.digest).tobytes() == PROMPTS[seed][0].tobytes()
            if self.ensemble is not None:
                (member,) = store.resolve_ensemble("team", tenant="acme").members
                assert (member.task, member.version) == self.ensemble

    def teardown(self) -> None:
        try:
            if self.stores:
                assert self.stores[0].check().clean
                self._compare_audit(self.stores[0])
        finally:
            self.close()
            self.folder.cleanup()

    def _compare_audit(self, store: PromptStore) -> None:
        """The audit log tells of every move of every alias, in order, and of nothing else."""
        told: dict[str, list[tuple[str, object, object]]] = {name: [] for name in self.tasks}
        for row in store.every_audit_row("acme"):
            name, _, alias = row.subject.partition("@")
            if row.action.startswith("alias."):
                told[name].append((alias, row.before, row.after))
        for name, model in self.tasks.items():
            if model.alive:
                assert told[name] == [
                    (
                        move.alias,
                        move.previous and {"version": move.previous},
                        move.version and {"version": move.version},
                    )
                    for move in store.alias_history("acme", name, limit=500).items
                ]

    @staticmethod
    def _point(model: ModelTask, alias: str, number: int) -> None:
        if model.aliases.get(alias) != number:
            model.moves += 1
            model.stacks.setdefault(alias, []).append(number)
            model.aliases[alias] = number


class InMemoryMachine(StoreMachine):
    """The same on the store's in-memory form."""

    on_disk = False


def test_the_store_is_the_model_on_disk() -> None:
    run_state_machine_as_test(StoreMachine, settings=machine_settings(14, 30))


def test_the_store_is_the_model_in_memory() -> None:
    run_state_machine_as_test(InMemoryMachine, settings=machine_settings(25, 30))


def test_the_store_is_the_model_on_postgresql(postgres_server: PostgresServer) -> None:
    class OnPostgres(StoreMachine):
        def prepare(self) -> None:
            self.url = postgres_server.emptied()

    run_state_machine_as_test(OnPostgres, settings=machine_settings(6, 30))


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "postgresql 18"])
def test_the_store_is_the_model_in_a_bucket(
    request: pytest.FixtureRequest, s3_server: S3Server, database: str
) -> None:
    servers = {"postgresql": "postgres_server", "postgresql 18": "newest_postgres_server"}
    postgres: PostgresServer | None = (
        request.getfixturevalue(servers[database]) if database in servers else None
    )

    class InBucket(StoreMachine):
        def prepare(self) -> None:
            self.url = postgres and postgres.emptied()
            self.blobs = s3_server.address()

    run_state_machine_as_test(InBucket, settings=machine_settings(3, 25))


class FollowingStore(PromptStore):
    """A broken store: `@live` follows the newest version."""

    def publish(self, tenant: str, task: str, *arguments: Any, **options: Any) -> Published:
        published = super().publish(tenant, task, *arguments, **options)
        if published.created:
            self.set_alias(tenant, task, "live", published.version.number)
        return published


class HastyStore(PromptStore):
    """A broken store: a deleted version takes its values along, whoever else names them."""

    def delete_version(self, tenant: str, task: str, number: int, *, deleted_by: str = "") -> None:
        digest = self.get_version(tenant, task, number).manifest.digest
        super().delete_version(tenant, task, number)
        self._blobs.remove(digest)


@pytest.mark.parametrize("broken", [FollowingStore, HastyStore])
def test_control_a_broken_store_is_noticed(broken: type[PromptStore]) -> None:
    class BrokenMachine(InMemoryMachine):
        store_type = broken

    with pytest.raises((AssertionError, StoreError)):
        run_state_machine_as_test(
            BrokenMachine, settings=settings(machine_settings(100, 40), phases=[Phase.generate])
        )
