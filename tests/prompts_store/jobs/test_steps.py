"""Training steps: reserved with a job, settled at its end, each in the month in which it was begun."""

from datetime import UTC, datetime
from typing import Any

import pytest

from prompts_store import PromptStore
from prompts_store.errors import InvalidError, LimitError, Quota
from prompts_store.jobs.records import Job, Lease
from prompts_store.tenants.limits import Budget, TenantLimits, TenantMonthlyAmounts
from prompts_store.testing import FakeClock

DAY = 86_400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 30, tzinfo=UTC))


def tenant(store: PromptStore, soft: int | None = None, hard: int | None = None) -> None:
    month = TenantMonthlyAmounts(training_steps=Budget(soft=soft, hard=hard))
    store.create_tenant("acme", limits=TenantLimits(per_month=month))


def create(store: PromptStore, steps: int) -> Job:
    return store.create_job("acme", "tuning", {"base_fingerprint": "base"}, training_steps=steps)


def used(store: PromptStore) -> int:
    return store.stored_use("acme").training_steps


def begun(store: PromptStore, done: int) -> Lease:
    """The job whose turn it is, which has done so many steps."""
    claimed = store.claim_job("tuning", "worker", 60, "base")
    assert claimed is not None
    store.update_job(claimed[1], progress={"training_steps": done})
    return claimed[1]


def test_a_job_takes_its_steps_and_gives_back_what_it_did_not_do(store: PromptStore) -> None:
    tenant(store, hard=100)
    create(store, 60)
    assert used(store) == 60, "before it has done anything"
    with pytest.raises(LimitError) as caught:
        create(store, 41)
    assert caught.value.code == "limit_exceeded"
    assert caught.value.quota == Quota("per_month.training_steps", "month", 100, 60)
    assert caught.value.retry_after_seconds == 2 * DAY, "from January 30th until February"
    assert len(store.list_jobs("acme", "tuning").items) == 1
    lease = begun(store, 25)
    assert used(store) == 60, "it may still do them all"
    store.finish_job(lease, "succeeded")
    assert used(store) == 25, "it stopped early"
    create(store, 75)
    assert used(store) == 100


@pytest.mark.parametrize("steps", [0, 100])
def test_what_fits_exactly_is_taken(store: PromptStore, steps: int) -> None:
    tenant(store, hard=steps)
    create(store, steps)
    create(store, 0)
    with pytest.raises(LimitError):
        create(store, 1)


def test_a_job_is_never_stopped_for_its_steps(store: PromptStore) -> None:
    tenant(store, hard=100)
    create(store, 100)
    lease = begun(store, 10)
    store.update_tenant(
        "acme", limits=TenantLimits(per_month=TenantMonthlyAmounts(training_steps=Budget(hard=0)))
    )
    assert not store.update_job(lease, progress={"training_steps": 100}).cancel_requested
    store.release_job(lease)
    assert used(store) == 100
    store.finish_job(begun(store, 100), "succeeded")
    assert used(store) == 100


@pytest.mark.parametrize("how", ["cancelled queued", "cancelled running", "lease ran out", "failed"])
def test_however_a_job_ends_it_keeps_what_it_did(store: PromptStore, clock: FakeClock, how: str) -> None:
    tenant(store)
    job = create(store, 50)
    done = 0 if how == "cancelled queued" else 20
    if done:
        lease = begun(store, done)
    if how == "failed":
        store.finish_job(lease, "failed")
    else:
        if how == "lease ran out":
            clock.advance(120)
        store.cancel_job("acme", job.id)
        if how == "cancelled running":
            assert used(store) == 50
            store.release_job(lease)
    assert store.get_job("acme", job.id).finished_at is not None
    assert used(store) == done


def test_a_resumed_job_takes_the_rest_in_the_month_of_its_resumption(
    store: PromptStore, clock: FakeClock
) -> None:
    tenant(store, hard=100)
    job = create(store, 80)
    store.finish_job(begun(store, 30), "failed")
    store.resume_job("acme", job.id, training_steps=80)
    assert used(store) == 80, "in the same month, all of it"
    store.finish_job(begun(store, 40), "failed")
    clock.advance(3 * DAY)
    assert used(store) == 0, "February"
    other = create(store, 70)
    with pytest.raises(LimitError):
        store.resume_job("acme", job.id, training_steps=80)
    store.cancel_job("acme", other.id)
    store.resume_job("acme", job.id, training_steps=80)
    assert used(store) == 40, "what is left of it"
    store.finish_job(begun(store, 55), "succeeded")
    assert used(store) == 15


def test_beyond_the_soft_limit_a_job_is_made_and_says_so(store: PromptStore) -> None:
    tenant(store, soft=50)
    first, second = create(store, 50), create(store, 1)
    assert [event.kind for event in store.job_events("acme", first.id)] == ["status"]
    _, told = store.job_events("acme", second.id)
    limit = {
        "limit": "per_month.training_steps",
        "window": "month",
        "most": 50,
        "used": 51,
        "of": "tenant",
    }
    assert (told.kind, told.data) == ("soft_limit", limit)
    assert store.soft_limit("acme") == Quota(**limit)  # type: ignore[arg-type]
    store.cancel_job("acme", second.id)
    assert store.soft_limit("acme") is None


@pytest.mark.parametrize("steps", [-1, 1.5, True, "7", None])
def test_what_is_no_number_of_steps_is_refused(store: PromptStore, steps: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        create(store, steps)
    assert caught.value.field == "training_steps"


@pytest.mark.parametrize(
    "progress", [{}, {"training_steps": None}, {"training_steps": "9"}, {"training_steps": 10**9}]
)
def test_what_a_job_says_of_itself_never_takes_more_than_it_reserved(
    store: PromptStore, progress: dict[str, Any]
) -> None:
    tenant(store)
    create(store, 50)
    lease = begun(store, 0)
    store.update_job(lease, progress=progress)
    store.finish_job(lease, "succeeded")
    assert used(store) == (50 if progress.get("training_steps") == 10**9 else 0)
