"""What comes again makes nothing twice, whoever gets it, and whatever is not the same is not taken for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import creations as table
from prompts_store.errors import InvalidError, LimitError
from prompts_store.records import Creation
from prompts_store.tenants import expiring
from prompts_store.tenants.creations import KEYED, UNKEYED, MadeBefore
from prompts_store.tenants.limits import StoredAmounts, TenantLimits
from prompts_store.testing import FakeClock, example_file, example_prompt
from tests.postgres_server import PostgresServer
from tests.prompts_store.writers import WRITERS, writing_processes

SPEC = {"base_fingerprint": "base"}

Make = Callable[[PromptStore], str]


def job(store: PromptStore) -> str:
    return store.create_job("acme", "tuning", SPEC).id


def file(store: PromptStore) -> str:
    return example_file(store, b"rows").id


def version(store: PromptStore) -> str:
    made = store.publish("acme", "sst2", *example_prompt(1)).version
    return f"{made.task}@{made.number}"


KINDS: dict[str, tuple[Make, Callable[[PromptStore, str], object]]] = {
    "job": (job, lambda store, made: store.cancel_job("acme", made)),
    "file": (file, lambda store, made: store.delete_file("acme", made)),
    "version": (version, lambda store, made: store.delete_task("acme", "sst2")),
}


def keyed(key: str = "k", *said: str) -> Creation:
    return Creation(key, "sender", said)


def unkeyed(sender: str = "sender", *said: str) -> Creation:
    return Creation(None, sender, said)


def made(store: PromptStore, creation: Creation, make: Make = job) -> tuple[str, bool]:
    """What came of a request, and whether it is new."""
    try:
        return make(store.creating(creation)), True
    except MadeBefore as before:
        return before.made, False


def remembered(store: PromptStore) -> int:
    with store._database.read(EVERY_TENANT) as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


@pytest.mark.parametrize("kind", KINDS)
def test_one_key_makes_one_thing_for_a_day(store: PromptStore, clock: FakeClock, kind: str) -> None:
    make, take_away = KINDS[kind]
    first, new = made(store, keyed(), make)
    assert new and made(store, keyed(), make) == (first, False)
    told = len(store.audit_rows("acme"))
    clock.advance(KEYED.total_seconds() - 1)
    assert made(store, keyed(), make) == (first, False)
    take_away(store, first)
    assert made(store, keyed(), make) == (first, False), "nor again once it is gone"
    assert len(store.audit_rows("acme")) - told < 4, "what makes nothing tells nothing"
    other, new = made(store, keyed("another"), make)
    assert new and other != first
    clock.advance(1)
    again, new = made(store, keyed(), make)
    assert new and (again == other) is (kind == "version"), "equal live versions are one"


@pytest.mark.parametrize("kind", KINDS)
def test_control_without_a_key_each_request_makes_another(store: PromptStore, kind: str) -> None:
    make, take_away = KINDS[kind]
    first = make(store)
    if kind == "version":  # equal live versions are one
        take_away(store, first)
    assert make(store) != first and remembered(store) == 0


def test_a_key_that_said_something_else_is_refused(store: PromptStore) -> None:
    first, _ = made(store, keyed("k", "one"))
    assert store.made_before("acme", keyed("k", "one")) == first
    for ask in (job, lambda other: str(other.made_before("acme", keyed("k", "two")))):
        with pytest.raises(InvalidError, match="another request: send every") as refused:
            ask(store.creating(keyed("k", "two")))
        assert (refused.value.code, refused.value.field) == ("idempotency_key_reused", "Idempotency-Key")
    assert len(store.list_jobs("acme", "tuning").items) == 1
    assert store.made_before("acme", keyed("k"), whole=False) == first, "what comes later is not compared"


def test_a_files_name_and_bytes_are_part_of_what_is_said(store: PromptStore) -> None:
    once = store.creating(keyed())
    first = example_file(once, b"rows")
    for content, name in ((b"other", "train.jsonl"), (b"rows", "other.jsonl")):
        with pytest.raises(InvalidError, match="another request"):
            example_file(once, content, name=name)
    assert [each.id for each in store.list_files("acme").items] == [first.id]
    assert store.stored_use("acme").file_bytes == 4
    assert store.check().temporary_files == 0


def test_parts_are_not_run_together(store: PromptStore) -> None:
    made(store, keyed("k", "ab", "c"))
    with pytest.raises(InvalidError):
        made(store, keyed("k", "a", "bc"))
    assert made(store, unkeyed("a", "b"))[1] and made(store, unkeyed("a", "b", ""))[1]


def test_another_tenants_key_is_another_key(store: PromptStore) -> None:
    first, _ = made(store, keyed())
    other = store.creating(keyed("k", "something else")).create_job("birch", "tuning", SPEC)
    assert other.id != first and store.made_before("birch", keyed(), whole=False) == other.id
    assert store.made_before("cedar", keyed()) is None


@pytest.mark.parametrize("kind", ["job", "file"])
def test_without_a_key_the_same_request_makes_one_thing_for_a_minute(
    store: PromptStore, clock: FakeClock, kind: str
) -> None:
    make, take_away = KINDS[kind]
    first, _ = made(store, unkeyed(), make)
    clock.advance(UNKEYED.total_seconds() - 1)
    assert made(store, unkeyed(), make) == (first, False)
    for other in (unkeyed("somebody else"), unkeyed("sender", "else"), keyed()):
        assert made(store, other, make)[1]
    assert store.made_before("acme", unkeyed()) is None, "only a key is asked early"
    take_away(store, first)
    second, new = made(store, unkeyed(), make)
    assert new and second != first, "what was taken away is made anew"
    assert made(store, unkeyed(), make) == (second, False)
    clock.advance(UNKEYED.total_seconds())
    assert made(store, unkeyed(), make)[1]


def test_a_job_that_failed_or_is_to_stop_is_made_anew_without_a_key(store: PromptStore) -> None:
    first, _ = made(store, unkeyed())
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None and made(store, unkeyed()) == (first, False)
    store.cancel_job("acme", first)
    second, new = made(store, unkeyed())
    assert new
    store.finish_job(claimed[1], "cancelled")
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None and claimed[0].id == second
    store.finish_job(claimed[1], "failed")
    third, new = made(store, unkeyed())
    assert new
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    store.finish_job(claimed[1], "succeeded")
    assert made(store, unkeyed()) == (third, False)


def test_of_what_was_refused_nothing_is_remembered(store: PromptStore) -> None:
    store.create_tenant("acme", limits=TenantLimits(stored=StoredAmounts(file_bytes=4)))
    spare = file(store)
    with pytest.raises(LimitError):
        made(store, keyed(), file)
    assert remembered(store) == 0
    store.delete_file("acme", spare)
    first, new = made(store, keyed(), file)
    assert new and made(store, keyed(), file) == (first, False), "though there is no room for another"


def test_what_is_over_is_forgotten_some_at_a_time(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiring, "_AT_ONCE", 2)
    for number in range(5):
        made(store, keyed(str(number)))
        made(store, unkeyed("sender", str(number)))
    assert store.drop_creations() == 0 and remembered(store) == 10
    clock.advance(UNKEYED.total_seconds())
    store.collect(grace_seconds=0)
    assert remembered(store) == 5
    clock.advance(KEYED.total_seconds())
    assert store.drop_creations() == 5 and remembered(store) == 0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.emptied()


def race(folder: Path, url: str | None, make: Make, creation: Creation | None) -> list[str]:
    """What each of many says that it made, threads of stores with connections and locks of their own."""
    found: list[str] = []
    with writing_processes(folder, url) as stores:
        barrier, clock = threading.Barrier(2 * WRITERS), FakeClock()
        for each in stores:
            each._clock = clock  # it stands still: no minute is over before the last of them has asked

        def attempt(store: PromptStore) -> None:
            barrier.wait(300)
            try:
                found.append(make(store if creation is None else store.creating(creation)))
            except MadeBefore as before:
                found.append(before.made)

        threads = [threading.Thread(target=attempt, args=(store,)) for store in stores * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 2 * WRITERS
    return found


@pytest.mark.parametrize("creation", [keyed(), unkeyed()], ids=["keyed", "unkeyed"])
@pytest.mark.parametrize("make", [job, file])
def test_of_many_at_once_one_makes_it(
    tmp_path: Path, url: str | None, make: Make, creation: Creation
) -> None:
    assert len(set(race(tmp_path, url, make, creation))) == 1


@pytest.mark.parametrize("make", [job, file])
def test_control_of_many_at_once_each_makes_its_own(tmp_path: Path, url: str | None, make: Make) -> None:
    assert len(set(race(tmp_path, url, make, None))) == 2 * WRITERS


@pytest.fixture(scope="module")
def memory() -> Iterator[tuple[PromptStore, FakeClock]]:
    clock = FakeClock()
    store = PromptStore.in_memory(clock=clock)
    yield store, clock
    store.close()


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([None, "a", "b"]), st.sampled_from("xy")),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([30, 61, 86_399])),
)
_TENANTS = iter(range(10**6))


@contextmanager
def checked(store: PromptStore, clock: FakeClock) -> Iterator[Callable[[Any], None]]:
    """Takes steps, and compares each with what a dictionary says."""
    tenant = f"tenant-{next(_TENANTS)}"
    known: dict[tuple[str | None, str], tuple[str, str, float]] = {}
    jobs: list[str] = []
    cancelled: set[str] = set()
    now = 0.0

    def step(taken: Any) -> None:
        nonlocal now
        if taken[0] == "wait":
            clock.advance(taken[1])
            now += taken[1]
        elif taken[0] == "cancel":
            if taken[1] < len(jobs) and jobs[taken[1]] not in cancelled:
                store.cancel_job(tenant, jobs[taken[1]])
                cancelled.add(jobs[taken[1]])
        else:
            _, key, body = taken
            place = (key, "" if key else body)
            before = known.get(place)
            if before is not None and (before[2] <= now or (key is None and before[0] in cancelled)):
                before = None
            try:
                answer = store.creating(Creation(key, "s", (body,))).create_job(tenant, "tuning", SPEC).id
            except MadeBefore as again:
                assert before is not None and before[:2] == (again.made, body)
            except InvalidError:
                assert before is not None and before[1] != body
            else:
                assert before is None
                jobs.append(answer)
                known[place] = (answer, body, now + (86_400 if key else 60))

    yield step
    assert len(store.list_jobs(tenant, "tuning", limit=500).items) == len(jobs)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_any_order_of_requests_is_answered_as_a_dictionary_would(
    memory: tuple[PromptStore, FakeClock], steps: list[Any]
) -> None:
    with checked(*memory) as step:
        for each in steps:
            step(each)
