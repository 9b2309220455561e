import re
from typing import Any

import pytest

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import ConflictError, InvalidError, LimitError, NotFoundError
from prompts_store.jobs.records import Job, JobEvent
from prompts_store.testing import FakeClock, example_file

SPEC = {"base_fingerprint": "base", "task": "sst2", "seed": 0}
ABSENT = "job-" + "0" * 24


def create(store: PromptStore, tenant: str = "acme", **options: Any) -> Job:
    return store.create_job(tenant, "tuning", SPEC, **options)


def statuses(store: PromptStore, job_id: str) -> list[str]:
    return [event.data["status"] for event in store.job_events("acme", job_id) if event.kind == "status"]


def end(store: PromptStore, status: Any, **options: Any) -> None:
    """Take the next job and finish it."""
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    store.finish_job(claimed[1], status, **options)


def test_a_new_job_waits(store: PromptStore, clock: FakeClock) -> None:
    file = example_file(store, b"rows")
    job = create(store, created_by="ann", files={"data.train.file": file.id, "data.test.file": file.id})
    assert re.fullmatch(r"job-[0-9a-f]{24}", job.id)
    assert job == Job(
        id=job.id,
        kind="tuning",
        tenant="acme",
        status="queued",
        spec=SPEC,
        created_at=clock(),
        created_by="ann",
        started_at=None,
        finished_at=None,
        error=None,
        progress={},
        result={},
        cancel_requested=False,
        attempt=0,
    )
    assert store.get_job("acme", job.id) == job
    assert store.job_events("acme", job.id) == [JobEvent(1, clock(), "status", {"status": "queued"})]


def test_an_unknown_file_names_the_field_that_named_it(store: PromptStore) -> None:
    mine, theirs = example_file(store, b"rows"), example_file(store, b"rows", tenant="other")
    gone = example_file(store, b"gone")
    store.delete_file("acme", gone.id)
    for wrong in (theirs.id, gone.id, "file-" + "0" * 24, "nonsense"):
        with pytest.raises(NotFoundError) as caught:
            create(store, files={"data.train.file": mine.id, "data.validation.file": wrong})
        assert (caught.value.code, caught.value.field) == ("unknown_file", "data.validation.file")
    assert store.list_jobs("acme", "tuning").items == ()
    store.delete_file("acme", mine.id)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.base_fingerprint"),
        ({"base_fingerprint": None}, "spec.base_fingerprint"),
        ({"base_fingerprint": "not one\n"}, "spec.base_fingerprint"),
        ({"base_fingerprint": "base", "x": float("nan")}, "spec"),
        ({"base_fingerprint": "base", "x": "\ud800"}, "spec"),
        ({"base_fingerprint": "base", "x": "y" * 300_000}, "spec"),
        ([], "spec"),
    ],
)
def test_bad_specs_are_refused(store: PromptStore, spec: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        store.create_job("acme", "tuning", spec)
    assert caught.value.field == field


def test_a_tenant_has_so_many_unfinished_jobs_and_no_more(store: PromptStore) -> None:
    create(store, "other")
    first, second = (create(store, max_unfinished=2) for _ in range(2))
    assert store.claim_job("tuning", "worker", 60, "base") is not None  # of the other tenant
    assert store.claim_job("tuning", "worker", 60, "base") is not None
    with pytest.raises(LimitError) as caught:
        create(store, max_unfinished=2)
    assert caught.value.code == "too_many_jobs" and "2 is the limit" in caught.value.message
    assert [job.status for job in store.list_jobs("acme", "tuning").items] == ["queued", "preparing"]
    store.cancel_job("acme", second.id)
    third = create(store, max_unfinished=2)
    with pytest.raises(LimitError):
        store.resume_job("acme", second.id, max_unfinished=2)
    store.cancel_job("acme", third.id)
    assert store.resume_job("acme", second.id, max_unfinished=2).status == "queued"
    assert store.get_job("acme", first.id).status == "preparing"


@pytest.mark.parametrize("job_id", [ABSENT, "job-1", "", "file-" + "0" * 24, ABSENT + "\n"])
def test_absent_malformed_and_foreign_ids_answer_alike(store: PromptStore, job_id: str) -> None:
    theirs = create(store, "other").id
    for ask in (store.get_job, store.cancel_job, store.pause_job, store.resume_job, store.job_events):
        told = []
        for wrong in (job_id, theirs):
            with pytest.raises(NotFoundError) as caught:
                ask("acme", wrong)
            told.append((caught.value.code, caught.value.field, caught.value.message.replace(wrong, "X")))
        assert told[0][:2] == told[1][:2] == ("unknown_job", "job")
    assert store.get_job("other", theirs).status == "queued"


def test_lists_are_newest_first_in_pages_and_by_status(store: PromptStore) -> None:
    made = [create(store).id for _ in range(5)]
    create(store, "other")
    store.cancel_job("acme", made[1])
    page = store.list_jobs("acme", "tuning", limit=3)
    assert [job.id for job in page.items] == made[:1:-1]
    create(store)
    rest = store.list_jobs("acme", "tuning", limit=3, cursor=page.next_cursor)
    assert ([job.id for job in rest.items], rest.next_cursor) == (made[1::-1], None)
    assert [job.id for job in store.list_jobs("acme", "tuning", status="cancelled").items] == [made[1]]
    assert len(store.list_jobs("acme", "tuning", status="queued").items) == 5
    assert store.list_jobs("acme", "tuning", status="running").items == ()
    for options in ({"status": "ended"}, {"limit": 0}, {"cursor": "x"}, {"cursor": page.next_cursor + "A"}):  # type: ignore[operator]
        with pytest.raises(InvalidError) as caught:
            store.list_jobs("acme", "tuning", **options)  # type: ignore[arg-type]
        assert caught.value.field == next(iter(options))
    with pytest.raises(InvalidError):
        store.list_jobs("other", "tuning", cursor=page.next_cursor)


def test_a_queued_job_is_cancelled_at_once(store: PromptStore, clock: FakeClock) -> None:
    job = create(store)
    clock.advance(5)
    cancelled = store.cancel_job("acme", job.id, by="ann")
    assert (cancelled.status, cancelled.finished_at, cancelled.started_at) == ("cancelled", clock(), None)
    assert store.claim_job("tuning", "worker", 60, "base") is None
    assert store.job_events("acme", job.id)[-1].data == {"status": "cancelled", "by": "ann"}


def test_a_running_job_is_told_to_stop_once(store: PromptStore) -> None:
    job = create(store)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    for _ in range(2):
        told = store.cancel_job("acme", job.id, by="ann")
        assert (told.status, told.cancel_requested, told.finished_at) == ("preparing", True, None)
    assert store.update_job(claimed[1], status="running").cancel_requested
    assert store.finish_job(claimed[1], "cancelled").status == "cancelled"
    assert statuses(store, job.id) == ["queued", "preparing", "preparing", "running", "cancelled"]


def test_a_job_whose_runner_is_overdue_is_cancelled_at_once(store: PromptStore, clock: FakeClock) -> None:
    job = create(store)
    assert store.claim_job("tuning", "worker", 60, "base") is not None
    clock.advance(60)
    assert store.cancel_job("acme", job.id).status == "cancelled"


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_what_is_over_is_not_cancelled(store: PromptStore, status: str) -> None:
    job = create(store)
    end(store, status)
    with pytest.raises(ConflictError) as caught:
        store.cancel_job("acme", job.id)
    assert (caught.value.code, caught.value.field) == ("job_over", "job")
    assert store.get_job("acme", job.id).status == status


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_stopped_goes_on(store: PromptStore, clock: FakeClock, status: str) -> None:
    job = create(store)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    store.update_job(claimed[1], progress={"step": 7})
    store.cancel_job("acme", job.id)
    store.finish_job(claimed[1], status, error={"code": "boom"}, result={"so": "far"})  # type: ignore[arg-type]
    clock.advance(5)
    resumed = store.resume_job("acme", job.id, by="ann")
    assert (resumed.status, resumed.error, resumed.finished_at) == ("queued", None, None)
    assert (resumed.cancel_requested, resumed.progress, resumed.attempt) == (False, {"step": 7}, 1)
    assert store.get_job("acme", job.id) == resumed
    again = store.claim_job("tuning", "worker", 60, "base")
    assert again is not None
    assert (again[0].attempt, again[1].token) == (2, claimed[1].token + 1)
    assert again[0].started_at == job.created_at
    assert [event.seq for event in store.job_events("acme", job.id)] == list(range(1, 7))


def test_what_did_not_stop_is_not_resumed(store: PromptStore) -> None:
    job = create(store)
    seen = []
    for step in (None, "claim", "finish"):
        if step == "claim":
            claimed = store.claim_job("tuning", "worker", 60, "base")
        elif step == "finish":
            assert claimed is not None
            store.finish_job(claimed[1], "succeeded", result={"versions": [1]})
        before = store.get_job("acme", job.id)
        with pytest.raises(ConflictError) as caught:
            store.resume_job("acme", job.id)
        assert caught.value.code == "job_not_stopped"
        assert store.get_job("acme", job.id) == before
        seen.append(before.status)
    assert seen == ["queued", "preparing", "succeeded"]


def test_a_paused_job_waits_until_it_is_resumed(store: PromptStore, clock: FakeClock) -> None:
    job, other = create(store), create(store)
    for _ in range(2):
        assert store.pause_job("acme", job.id, by="ann").paused
    clock.advance(5)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None and claimed[0].id == other.id
    assert store.claim_job("tuning", "worker", 60, "base") is None
    resumed = store.resume_job("acme", job.id, by="ann")
    assert (resumed.status, resumed.paused) == ("queued", False)
    again = store.claim_job("tuning", "worker", 60, "base")
    assert again is not None and again[0].id == job.id
    told = [event.data for event in store.job_events("acme", job.id)]
    assert told[1:3] == [{"status": "queued", "paused": paused, "by": "ann"} for paused in (True, False)]


def test_a_running_job_that_is_paused_is_told_and_given_back(store: PromptStore) -> None:
    job = create(store)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    assert store.pause_job("acme", job.id).status == "preparing"
    assert store.update_job(claimed[1], progress={"step": 3}).paused
    store.release_job(claimed[1])
    assert store.claim_job("tuning", "worker", 60, "base") is None
    assert store.get_job("acme", job.id).status == "queued"
    store.resume_job("acme", job.id)
    assert store.claim_job("tuning", "worker", 60, "base") is not None


def test_a_paused_job_whose_runner_is_overdue_is_queued(store: PromptStore, clock: FakeClock) -> None:
    job = create(store)
    assert store.claim_job("tuning", "worker", 60, "base") is not None
    clock.advance(60)
    assert store.pause_job("acme", job.id).status == "queued"
    assert store.claim_job("tuning", "worker", 60, "base") is None


def test_a_paused_job_can_be_cancelled(store: PromptStore) -> None:
    job = create(store)
    store.pause_job("acme", job.id)
    cancelled = store.cancel_job("acme", job.id)
    assert (cancelled.status, cancelled.paused) == ("cancelled", False)
    with pytest.raises(ConflictError) as caught:
        store.pause_job("acme", job.id)
    assert caught.value.code == "job_over" and "nothing to pause" in caught.value.message


def test_a_resumed_job_is_last_in_the_queue(store: PromptStore, clock: FakeClock) -> None:
    first = create(store)
    clock.advance(1)
    second = create(store)
    store.cancel_job("acme", first.id)
    clock.advance(1)
    store.resume_job("acme", first.id)
    taken = [store.claim_job("tuning", "worker", 60, "base") for _ in range(2)]
    assert [claim[0].id for claim in taken if claim] == [second.id, first.id]


def test_events_are_numbered_and_read_on(store: PromptStore, clock: FakeClock) -> None:
    job = create(store)
    create(store)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    clock.advance(1)
    store.append_events(claimed[1], [("step", {"step": 1}), ("step", {"step": 2, "losses": [0.5]})])
    store.append_events(claimed[1], [])
    events = store.job_events("acme", job.id)
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert events[3] == JobEvent(4, clock(), "step", {"step": 2, "losses": [0.5]})
    assert store.job_events("acme", job.id, after=2, limit=1) == events[2:3]
    assert store.job_events("acme", job.id, after=4) == []
    for options in ({"after": -1}, {"after": "1"}, {"after": True}, {"limit": 0}, {"limit": 501}):
        with pytest.raises(InvalidError) as caught:
            store.job_events("acme", job.id, **options)  # type: ignore[arg-type]
        assert caught.value.field == next(iter(options))


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (("status", {}), "events.1.kind"),
        (("Step", {}), "events.1.kind"),
        (("", {}), "events.1.kind"),
        (("x" * 65, {}), "events.1.kind"),
        (("step", []), "events.1.data"),
        (("step", {"loss": float("nan")}), "events.1.data"),
        (("step", {"x": "y" * 70_000}), "events.1.data"),
    ],
)
def test_one_bad_event_refuses_all(store: PromptStore, event: Any, field: str) -> None:
    job = create(store)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    with pytest.raises(InvalidError) as caught:
        store.append_events(claimed[1], [("step", {}), event])
    assert caught.value.field == field
    assert [found.kind for found in store.job_events("acme", job.id)] == ["status", "status"]


def test_events_from_the_last_and_of_some_kinds(store: PromptStore) -> None:
    job = create(store)
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    store.append_events(claimed[1], [("step", {}), ("evaluated", {}), ("step", {})])

    def seqs(**which: Any) -> list[int]:
        return [event.seq for event in store.job_events("acme", job.id, **which)]

    assert seqs(newest_first=True) == [5, 4, 3, 2, 1]
    assert seqs(newest_first=True, after=4, limit=2) == [3, 2]
    assert seqs(kinds=["step"]) == [3, 5]
    assert seqs(kinds=["step", "status"], newest_first=True, after=5) == [3, 2, 1]


def test_a_count_of_events_that_is_behind_is_found_and_mended(store: PromptStore) -> None:
    job = create(store)
    with store._database.write(EVERY_TENANT) as connection:
        connection.exec_driver_sql("UPDATE jobs SET last_event = 0")
    assert [(found.kind, found.where) for found in store.check().problems] == [("wrong_job", job.id)]
    assert [found.repaired for found in store.check(repair=True).problems] == [True]
    assert store.check().clean
    assert store.cancel_job("acme", job.id).status == "cancelled"


def test_a_job_of_another_kind_is_nobodys_tuning_job(store: PromptStore) -> None:
    other, mine = create(store), create(store)
    with store._database.write(EVERY_TENANT) as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET kind = 'batch' WHERE id = '{other.id}'")
    for ask in (store.get_job, store.cancel_job, store.resume_job, store.job_events):
        with pytest.raises(NotFoundError) as caught:
            ask("acme", other.id, kind="tuning")
        assert (caught.value.code, caught.value.field) == ("unknown_job", "job")
    assert store.get_job("acme", other.id).kind == "batch", "who asks for no kind is told of any"
    assert [job.id for job in store.list_jobs("acme", "tuning").items] == [mine.id]
    with pytest.raises(LimitError, match=r"^1 tuning jobs"):
        create(store, max_unfinished=1)
    assert create(store, max_unfinished=2).kind == "tuning"
    taken = [store.claim_job("tuning", "worker", 60, "base") for _ in range(3)]
    assert [each is not None and each[0].kind for each in taken] == ["tuning", "tuning", False]


@pytest.mark.parametrize("kind", ["", "batches", 2.5, 1])
def test_a_kind_that_is_none_is_refused(store: PromptStore, kind: Any) -> None:
    for ask in (
        lambda: store.create_job("acme", kind, SPEC),
        lambda: store.list_jobs("acme", kind),
        lambda: store.claim_job(kind, "worker", 60, "base"),
    ):
        with pytest.raises(InvalidError) as caught:
            ask()
        assert (caught.value.code, caught.value.field) == ("invalid_kind", "kind")
