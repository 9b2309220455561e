"""Limits on what a tenant keeps: counted with each change, and never exceeded by writers at one time."""

import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.migrate import alembic_config
from prompts_store.errors import LimitError, Quota
from prompts_store.tenants import stored
from prompts_store.tenants.limits import StoredAmounts, TenantLimits
from prompts_store.tenants.records import StoredUse
from prompts_store.testing import FakeClock, example_file, example_prompt
from tests.postgres_server import PostgresServer
from tests.prompts_store.writers import WRITERS, writing_processes

BYTES = 4 * 3 * 5
"""Of an example's values."""


def tenant(store: PromptStore, **amounts: Any) -> None:
    store.create_tenant("acme", limits=TenantLimits(stored=StoredAmounts(**amounts)))


def publish(store: PromptStore, seed: int, task: str = "sst2") -> bool:
    return store.publish("acme", task, *example_prompt(seed)).created


def test_what_a_tenant_keeps_is_counted_as_it_changes(store: PromptStore) -> None:
    assert store.stored_use("acme") == StoredUse(0, 0, 0, 0, 0)
    for seed in (1, 2, 3):
        publish(store, seed)
    publish(store, 1, "other"), publish(store, 1, "other")
    file = example_file(store, b"12345")
    example_file(store, b"12345")
    store.publish("birch", "sst2", *example_prompt(1))
    store.create_job("acme", "tuning", {"base_fingerprint": "base"}, training_steps=7)
    assert store.stored_use("acme") == StoredUse(4, 4 * BYTES, 10, 1, 7), "equal content counts for each"
    store.delete_version("acme", "sst2", 2)
    store.delete_file("acme", file.id)
    assert store.stored_use("acme") == StoredUse(3, 3 * BYTES, 5, 1, 7)
    store.delete_task("acme", "sst2")
    assert store.stored_use("acme") == StoredUse(1, BYTES, 5, 1, 7)
    publish(store, 5)
    assert store.stored_use("acme") == StoredUse(2, 2 * BYTES, 5, 1, 7)
    assert store.stored_use("birch") == StoredUse(1, BYTES, 0, 0, 0)


@pytest.mark.parametrize(
    ("amounts", "name", "limit", "used"),
    [({"prompts": 2}, "prompts", 2, 2), ({"prompt_bytes": 3 * BYTES - 1}, "prompt_bytes", 179, 120)],
)
def test_a_full_tenant_gets_no_new_version(
    store: PromptStore, amounts: dict[str, int], name: str, limit: int, used: int
) -> None:
    tenant(store, **amounts)
    publish(store, 1)
    publish(store, 2)
    before = store.stored_use("acme")
    for task in ("sst2", "new"):
        with pytest.raises(LimitError) as caught:
            publish(store, 3, task)
        assert caught.value.code == "limit_exceeded"
        assert caught.value.quota == Quota(f"stored.{name}", None, limit, used)
    assert store.stored_use("acme") == before and len(store.list_tasks("acme").items) == 1
    assert not publish(store, 2), "the same manifest again is no new version"
    store.delete_version("acme", "sst2", 2)
    assert publish(store, 3)
    store.update_tenant("acme", limits=TenantLimits())
    assert publish(store, 4)


def test_an_upload_is_refused_before_it_comes_unless_it_may_be_a_repetition(store: PromptStore) -> None:
    tenant(store, prompts=1, file_bytes=10)
    store.check_version_room("acme", "sst2")
    publish(store, 1)
    store.check_version_room("acme", "sst2")
    with pytest.raises(LimitError):
        store.check_version_room("acme", "new")
    store.check_file_room("acme", 10)
    with pytest.raises(LimitError) as caught:
        store.check_file_room("acme", 11)
    assert caught.value.quota == Quota("stored.file_bytes", None, 10, 0)


def test_a_file_that_does_not_fit_leaves_nothing(store: PromptStore) -> None:
    tenant(store, file_bytes=10)
    example_file(store, b"123456")
    with pytest.raises(LimitError) as caught:
        example_file(store, b"12345")
    assert caught.value.quota == Quota("stored.file_bytes", None, 10, 6)
    example_file(store, b"1234")
    assert [file.size_bytes for file in store.list_files("acme").items] == [4, 6]
    report = store.check()
    assert report.clean and (report.orphans, report.temporary_files) == (0, 0)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.emptied()


PLACES, TRIES = 4, 3


def race(folder: Path, url: str | None) -> int:
    """How many of many versions and files were made for the last places, by threads of several stores."""
    with writing_processes(folder, url) as stores:
        stores[0].create_tenant(
            "acme", limits=TenantLimits(stored=StoredAmounts(prompts=PLACES, file_bytes=PLACES))
        )
        barrier, made, refused = threading.Barrier(2 * WRITERS), [], []

        def attempt(store: PromptStore, make: Callable[[int], object], number: int) -> None:
            store.check_version_room("acme", f"task-{number}")
            store.check_file_room("acme", 1)
            barrier.wait(300)
            for each in range(TRIES):
                try:
                    make(TRIES * number + each)
                except LimitError as error:
                    refused.append(error)
                else:
                    made.append(number)

        threads = []
        for number, store in enumerate(stores):
            for make in (
                lambda each, store=store: publish(store, each, f"task-{each}"),
                lambda each, store=store: example_file(store, b"%d" % each),
            ):
                threads.append(threading.Thread(target=attempt, args=(store, make, number)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) + len(refused) == 2 * WRITERS * TRIES
        use = stores[0].stored_use("acme")
        assert use.prompts + use.file_bytes == len(made)
    return len(made)


def test_writers_at_one_time_never_exceed_a_limit(tmp_path: Path, url: str | None) -> None:
    assert race(tmp_path, url) == 2 * PLACES


def test_control_who_asks_only_before_it_writes_exceeds_it(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, callers = stored.require_room, {"check_version_room", "check_file_room"}

    def only_early(connection: Any, tenant: str, **more: int) -> None:
        if sys._getframe(1).f_code.co_name in callers:
            real(connection, tenant, **more)

    monkeypatch.setattr(stored, "require_room", only_early)
    with pytest.raises(AssertionError):
        assert race(tmp_path, url) == 2 * PLACES


@pytest.mark.parametrize("server", [False, True], ids=["sqlite", "postgresql"])
def test_a_migration_counts_what_is_there(
    request: pytest.FixtureRequest, tmp_path: Path, server: bool
) -> None:
    url = request.getfixturevalue("postgres_server").create() if server else None
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        for seed in (1, 2):
            publish(store, seed)
        publish(store, 1, "gone")
        store.delete_task("acme", "gone")
        example_file(store, b"123")
        example_file(store, b"12", tenant="birch")
        before = [store.stored_use(name) for name in ("acme", "birch", "cedar")]
        with store._database.write(EVERY_TENANT) as connection:
            command.downgrade(alembic_config(connection), "0008")
            command.upgrade(alembic_config(connection), "head")
        assert [store.stored_use(name) for name in ("acme", "birch", "cedar")] == before
        assert before[0] == StoredUse(2, 2 * BYTES, 3, 0, 0)


def test_unfinished_jobs_have_the_tenants_own_limit_or_the_default(
    store: PromptStore, clock: FakeClock
) -> None:
    def create() -> str:
        return store.create_job("acme", "tuning", {"base_fingerprint": "base"}, max_unfinished=2).id

    tenant(store, unfinished_jobs=3)
    first, _, _ = (create() for _ in range(3))
    with pytest.raises(LimitError) as caught:
        create()
    assert caught.value.code == "too_many_jobs"
    assert caught.value.quota == Quota("stored.unfinished_jobs", None, 3, 3)
    store.cancel_job("acme", first)
    create()
    with pytest.raises(LimitError):
        store.resume_job("acme", first)
    store.update_tenant("acme", limits=TenantLimits())
    with pytest.raises(LimitError, match="2 is the limit") as caught:
        create()
    assert caught.value.quota is None, "the default is nobody's own"
