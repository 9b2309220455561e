import threading
from typing import Any

import pytest

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import InvalidError, LeaseLostError
from prompts_store.jobs.records import MATRIX_DTYPE, Job, Lease
from prompts_store.testing import FakeClock

SPEC = {"base_fingerprint": "base"}


def create(store: PromptStore, tenant: str = "acme") -> str:
    return store.create_job(tenant, "tuning", SPEC).id


def claim(store: PromptStore, owner: str = "worker", seconds: float = 60) -> tuple[Job, Lease]:
    claimed = store.claim_job("tuning", owner, seconds, "base")
    assert claimed is not None
    return claimed


def test_a_claimed_job_is_prepared_by_its_owner(store: PromptStore, clock: FakeClock) -> None:
    job_id = create(store)
    clock.advance(5)
    job, lease = claim(store, seconds=30)
    assert (job.id, job.status, job.attempt, job.started_at) == (job_id, "preparing", 1, clock())
    assert store.get_job("acme", job_id) == job
    assert (lease.job_id, lease.tenant, lease.owner, lease.token) == (job_id, "acme", "worker", 1)
    assert (lease.expires_at - clock()).total_seconds() == 30
    assert store.claim_job("tuning", "another", 30, "base") is None
    assert store.job_events("acme", job_id)[-1].data == {"status": "preparing", "attempt": 1}


def test_who_runs_jobs_is_known_while_a_lease_lasts(store: PromptStore, clock: FakeClock) -> None:
    for tenant in ("acme", "other", "third", "fourth"):
        create(store, tenant)
    assert store.job_holders() == []
    claim(store, "b", 30)
    claim(store, "a", 60)
    last = claim(store, "b", 90)[1]
    a, b = store.job_holders()
    assert (a.name, a.leases, b.name, b.leases, b.expires_at) == ("a", 1, "b", 2, last.expires_at)
    clock.advance(60)
    assert [(each.name, each.leases) for each in store.job_holders()] == [("b", 1)]
    store.release_job(last)
    assert store.job_holders() == []


def test_jobs_for_another_base_are_left_alone(store: PromptStore) -> None:
    store.create_job("acme", "tuning", {"base_fingerprint": "small"})
    mine = create(store)
    assert claim(store)[0].id == mine
    assert store.claim_job("tuning", "worker", 60, "base") is None
    assert store.claim_job("tuning", "worker", 60, "small") is not None


def test_a_begun_job_goes_on_with_matrices_of_its_type_alone(store: PromptStore) -> None:
    begun = create(store)
    job, lease = claim(store)
    assert job.id == begun
    store.release_job(lease)
    assert store.jobs_of_other_matrices("tuning", "base", "bfloat16") == [], "nothing is settled yet"
    settled = {"sizes": {"micro_batch_size": 4}, MATRIX_DTYPE: "bfloat16"}
    for progress, theirs, others in (
        ({"settled": settled}, "bfloat16", "float32"),
        # Begun before types were kept.
        ({"settled": {"sizes": {}}}, "float32", "bfloat16"),
    ):
        claimed = store.claim_job("tuning", "worker", 60, "base")
        assert claimed is not None
        store.update_job(claimed[1], progress=progress)
        assert store.jobs_of_other_matrices("tuning", "base", others) == [], "somebody runs it"
        store.release_job(claimed[1])
        assert store.claim_job("tuning", "worker", 60, "base", others) is None
        assert [each.id for each in store.jobs_of_other_matrices("tuning", "base", others)] == [begun]
        assert store.jobs_of_other_matrices("tuning", "base", theirs) == []
        assert store.jobs_of_other_matrices("tuning", "small", others) == []
        again = store.claim_job("tuning", "worker", 60, "base", theirs)
        assert again is not None and again[0].id == begun
        store.update_job(again[1], progress={})
        store.release_job(again[1])


def test_first_come_first_served(store: PromptStore, clock: FakeClock) -> None:
    made = []
    for _ in range(4):
        made.append(create(store))
        clock.advance(1)
    assert [claim(store)[0].id for _ in range(4)] == made


def test_jobs_of_one_moment_go_in_the_order_of_making(store: PromptStore) -> None:
    made = [create(store) for _ in range(4)]
    assert [claim(store)[0].id for _ in range(4)] == made


def test_the_tenant_with_the_fewest_at_work_is_first(store: PromptStore, clock: FakeClock) -> None:
    """A tenant with a hundred jobs waiting holds up the others by the one at work, not by the hundred."""
    for tenant in ("busy", "busy", "busy", "busy", "quiet", "late", "quiet"):
        create(store, tenant)
        clock.advance(1)
    taken = [claim(store)[0].tenant for _ in range(7)]
    assert taken == ["busy", "quiet", "late", "busy", "quiet", "busy", "busy"]


def test_work_that_is_overdue_counts_against_nobody(store: PromptStore, clock: FakeClock) -> None:
    create(store, "unlucky")
    create(store, "unlucky")
    first = claim(store, seconds=10)[0]
    clock.advance(10)
    create(store, "other")
    assert claim(store)[0].id == first.id, "it has waited longest"


def test_a_lease_that_ran_out_goes_to_another_who_alone_writes(store: PromptStore, clock: FakeClock) -> None:
    create(store)
    _, late = claim(store, "late", seconds=10)
    store.update_job(late, status="running", progress={"step": 3})
    clock.advance(9.9)
    assert store.claim_job("tuning", "eager", 10, "base") is None
    clock.advance(0.1)
    job, lease = claim(store, "eager", seconds=10)
    assert (job.attempt, job.status, job.progress, lease.token) == (2, "preparing", {"step": 3}, 2)
    _refuses_everything(store, late)
    assert store.update_job(lease, status="running").status == "running"
    assert store.finish_job(lease, "succeeded", result={"version": 1}).result == {"version": 1}


def _refuses_everything(store: PromptStore, lease: Lease) -> None:
    before = store.get_job(lease.tenant, lease.job_id), store.job_events(lease.tenant, lease.job_id)
    writes: list[Any] = [
        lambda: store.renew_lease(lease, 60),
        lambda: store.release_job(lease),
        lambda: store.update_job(lease),
        lambda: store.update_job(lease, status="running", progress={"step": 99}),
        lambda: store.append_events(lease, [("step", {})]),
        lambda: store.append_events(lease, []),
        lambda: store.finish_job(lease, "failed", error={"code": "late"}),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError) as caught:
            write()
        assert caught.value.code == "lease_lost"
    assert before == (store.get_job(lease.tenant, lease.job_id), store.job_events(lease.tenant, lease.job_id))


def test_a_lease_that_ran_out_is_good_until_another_takes_the_job(
    store: PromptStore, clock: FakeClock
) -> None:
    create(store)
    _, lease = claim(store, seconds=10)
    clock.advance(100)
    store.append_events(lease, [("step", {})])
    renewed = store.renew_lease(lease, 10)
    assert renewed.token == lease.token and (renewed.expires_at - clock()).total_seconds() == 10
    assert store.claim_job("tuning", "another", 10, "base") is None
    assert store.finish_job(renewed, "succeeded").status == "succeeded"


def test_a_renewed_lease_lasts(store: PromptStore, clock: FakeClock) -> None:
    create(store)
    _, lease = claim(store, seconds=10)
    for _ in range(5):
        clock.advance(9)
        lease = store.renew_lease(lease, 10)
        assert store.claim_job("tuning", "another", 10, "base") is None


def test_a_job_given_back_keeps_its_place(store: PromptStore, clock: FakeClock) -> None:
    first = create(store)
    clock.advance(1)
    create(store)
    _, lease = claim(store)
    store.update_job(lease, status="running", progress={"step": 3})
    store.release_job(lease)
    job = store.get_job("acme", first)
    assert (job.status, job.progress, job.attempt) == ("queued", {"step": 3}, 1)
    _refuses_everything(store, lease)
    again, newer = claim(store)
    assert (again.id, again.attempt, newer.token) == (first, 2, lease.token + 1)


def test_a_job_given_back_that_was_to_be_cancelled_is(store: PromptStore) -> None:
    job_id = create(store)
    _, lease = claim(store)
    store.cancel_job("acme", job_id)
    store.release_job(lease)
    assert store.get_job("acme", job_id).status == "cancelled"
    _refuses_everything(store, lease)


def test_a_cancelled_job_is_in_nobodys_hands(store: PromptStore, clock: FakeClock) -> None:
    job_id = create(store)
    _, lease = claim(store, seconds=10)
    clock.advance(10)
    store.cancel_job("acme", job_id)
    _refuses_everything(store, lease)
    store.resume_job("acme", job_id)
    _refuses_everything(store, lease)


def test_a_request_to_cancel_outlives_the_runner_who_did_not_see_it(
    store: PromptStore, clock: FakeClock
) -> None:
    job_id = create(store)
    claim(store, seconds=10)
    store.cancel_job("acme", job_id)
    clock.advance(10)
    assert claim(store)[0].cancel_requested


def test_finished_once(store: PromptStore, clock: FakeClock) -> None:
    job_id = create(store)
    _, lease = claim(store)
    clock.advance(5)
    job = store.finish_job(lease, "failed", error={"code": "no_rows", "message": "It is empty."})
    assert (job.status, job.finished_at) == ("failed", clock())
    assert job.error == {"code": "no_rows", "message": "It is empty."}
    assert store.job_events("acme", job_id)[-1].data == {"status": "failed", "error": job.error}
    _refuses_everything(store, lease)
    assert store.claim_job("tuning", "worker", 60, "base") is None


def test_progress_is_replaced_and_a_status_told_once(store: PromptStore) -> None:
    job_id = create(store)
    _, lease = claim(store)
    store.update_job(lease, progress={"a": 1})
    for _ in range(3):
        job = store.update_job(lease, status="running", progress={"b": 2})
    assert (job.status, job.progress) == ("running", {"b": 2})
    assert store.update_job(lease) == job
    assert len(store.job_events("acme", job_id)) == 3


def test_bad_arguments_are_refused(store: PromptStore) -> None:
    create(store)
    for seconds in (0, -1, float("nan"), float("inf"), True, "60"):
        with pytest.raises(InvalidError) as caught:
            store.claim_job("tuning", "worker", seconds, "base")  # type: ignore[arg-type]
        assert caught.value.field == "lease_seconds"
    _, lease = claim(store)
    bad: list[tuple[Any, str]] = [
        (lambda: store.update_job(lease, status="succeeded"), "status"),  # type: ignore[arg-type]
        (lambda: store.finish_job(lease, "running"), "status"),  # type: ignore[arg-type]
        (lambda: store.update_job(lease, progress={"x": float("nan")}), "progress"),
        (lambda: store.finish_job(lease, "failed", error={"x": "y" * 20_000}), "error"),
        (lambda: store.finish_job(lease, "succeeded", result=[]), "result"),  # type: ignore[arg-type]
        (lambda: store.renew_lease(lease, 0), "lease_seconds"),
        (lambda: store.claim_job("tuning", "worker", 60, ""), "base_fingerprint"),
        (lambda: store.claim_job("tuning", "\0", 60, "base"), "owner"),
    ]
    for ask, field in bad:
        with pytest.raises(InvalidError) as caught:
            ask()
        assert caught.value.field == field
    assert store.update_job(lease).status == "preparing"


def _claim_at_once(store: PromptStore, threads: int) -> list[tuple[str, int]]:
    """What several runners got that all claim until nothing waits, each job given back once."""
    start = threading.Barrier(threads)
    taken: list[tuple[str, int]] = []
    lock = threading.Lock()

    def run(number: int) -> None:
        start.wait()
        while (claimed := store.claim_job("tuning", f"worker {number}", 60, "base")) is not None:
            with lock:
                taken.append((claimed[0].id, claimed[1].token))
            if claimed[1].token == 1:
                store.release_job(claimed[1])

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return taken


def test_runners_that_claim_at_once_never_get_the_same(store: PromptStore) -> None:
    store._database.patience_seconds = 1200  # on a slow disk the others' turns take long
    made = [create(store, f"tenant{number % 3}") for number in range(12)]
    taken = _claim_at_once(store, 6)
    assert sorted(taken) == sorted((job_id, token) for job_id in made for token in (1, 2))


def test_the_columns_of_a_lease_agree_or_the_database_refuses(disk_store: PromptStore) -> None:
    create(disk_store)
    claim(disk_store)
    for change in (
        "lease_owner = NULL",
        "lease_expires_at = NULL",
        "status = 'queued'",
        "status = 'succeeded'",
        "finished_at = 1",
    ):
        with pytest.raises(Exception, match="CHECK"), disk_store._database.write(EVERY_TENANT) as connection:
            connection.exec_driver_sql(f"UPDATE jobs SET {change}")
