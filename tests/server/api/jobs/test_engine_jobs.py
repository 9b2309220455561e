"""Jobs that ask the engine: held under a lease, worked off by block, patient where a caller is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chorus_server import jobs_wiring
from chorus_server.api.inference.calls import Call, prepared_items
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import score_requests, scores_of
from chorus_server.api.inference.submit import outcomes
from chorus_server.api.jobs.attempt import EngineAttempt
from chorus_server.api.jobs.engine_jobs import JobWork
from chorus_server.api.services import Services
from chorus_server.engine.requests import Origin, ScoreRequest
from chorus_server.errors import ChorusError, DeadlineExceededError
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.errors import StoreError
from prompts_store.jobs.records import KINDS, OVER, Job
from prompts_store.store import PromptStore
from prompts_store.tenants.limits import TenantLimits
from prompts_store.tenants.records import Change
from prompts_store.testing import FakeClock, file_bytes
from tests.server.api.api_harness import FINGERPRINT, ApiServer, Gate, counted, eventually, gated_server

TEXTS = ["good film", "bad movie", "funny", "moving", "two hours", "waste", "the sky", "warm rain", "sport"]
LABELS = ["yes", "no"]
BLOCK_ROWS = 2


class Scoring:
    """The work of a job: how likely labels are after each text.

    Attributes:
        asked: the blocks that were asked, by their first row.
        priorities: of the requests.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.priorities: set[str] = set()

    def __call__(self, attempt: EngineAttempt) -> Mapping[str, Any]:
        def answer(rows: range) -> bytes:
            self.asked.append(rows.start)
            return attempt.ask(lambda call: self.score(call, [TEXTS[row] for row in rows]))

        contents = attempt.work_off(len(TEXTS), BLOCK_ROWS, answer)
        return {"file": attempt.save_file(f"{attempt.job.id}-scores.jsonl", contents)}

    async def score(self, call: Call, texts: list[str]) -> bytes:
        self.priorities.add(call.priority)
        items = [Item(None, text.encode(), "row") for text in texts]
        async with prepared_items(call, items) as prepared:
            requests = await score_requests(call, prepared, LABELS, sent=True)
            found = [scores_of(outcome) for outcome in await outcomes(call.submit, requests)]
        lines = []
        for text, scores in zip(texts, found, strict=True):
            assert not isinstance(scores, ChorusError), scores
            lines.append(json.dumps({"text": text, "scores": list(scores)}) + "\n")
        return "".join(lines).encode()


def queue(store: PromptStore, tenant: str = "default") -> Job:
    return store.create_job(tenant, "evaluation", {"base_fingerprint": FINGERPRINT})


def over(store: PromptStore, job: Job) -> Job:
    eventually(lambda: store.get_job(job.tenant, job.id).status in OVER)
    return store.get_job(job.tenant, job.id)


def content(store: PromptStore, job: Job) -> bytes:
    return file_bytes(store, job.tenant, job.result["file"])


@contextmanager
def working(services: Services, work: JobWork) -> Iterator[None]:
    """Jobs are taken inside the block."""
    start_engine_jobs(services, {"evaluation": work})
    try:
        yield
    finally:
        for runner in services.engine_jobs:
            assert runner.stop(300)
        services.engine_jobs = ()


def test_a_job_asks_as_a_batch_and_leaves_a_file(data_dir: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(data_dir, vocabulary) as api:
        work = Scoring()
        with working(api.services, work):
            job = over(api.store, queue(api.store))
        assert job.status == "succeeded", job.error
        assert work.priorities == {"batch"} and work.asked == [0, 2, 4, 6, 8]
        lines = [json.loads(line) for line in content(api.store, job).splitlines()]
        assert [line["text"] for line in lines] == TEXTS
        answer = api.post("/v1/classify", {"task": None, "inputs": TEXTS, "labels": LABELS}).json()["results"]
        asked = [[each["log_probabilities"][label] for label in LABELS] for each in answer]
        assert [line["scores"] for line in lines] == asked, "as a caller is answered"
        events = api.store.job_events("default", job.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.data["rows"] for event in events if event.kind == "rows"] == [2, 4, 6, 8, 9]
        assert job.progress["settled"] == {"matrix_dtype": "float32"}
        assert not list((data_dir / "jobs").glob("*/*")), "nothing is left of it"
        counts = {"runs": 1, "rows": len(TEXTS)}
        for name, number in counts.items():
            assert counted(api, f"chorus_jobs_{name}_total", kind="evaluation") == number
        ended = {"kind": "evaluation", "ending": "succeeded"}
        assert counted(api, "chorus_jobs_runs_ended_total", **ended) == 1


def test_jobs_that_another_process_queues_are_taken_at_once(
    data_dir: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change feed tells of them: by itself this process looks once an hour."""
    monkeypatch.setattr(jobs_wiring, "JOB_LOOK_SECONDS", 3600.0)
    with (
        ApiServer(data_dir, vocabulary) as api,
        closing(PromptStore.open(data_dir)) as other,
        working(api.services, Scoring()),
    ):
        for _ in range(3):  # the first may be taken by the look at the start
            assert over(other, queue(other)).status == "succeeded"
        other.suspend_tenant("default")
        waiting = queue(other)
        other.resume_tenant("default")
        assert over(other, waiting).status == "succeeded"


def test_only_runners_of_what_was_queued_are_woken() -> None:
    woken: list[tuple[str, ...]] = []

    class Woken:
        def wake_jobs(self, kinds: Collection[str] = KINDS) -> None:
            woken.append(tuple(sorted(kinds)))

    def told(*changes: tuple[str, str]) -> None:
        now = datetime.now(UTC)
        queued.changed([Change(n, now, kind, "acme", subject) for n, (kind, subject) in enumerate(changes)])

    queued = jobs_wiring.QueuedJobs(Woken())  # type: ignore[arg-type]
    told(("alias_moved", "sst2@live"), ("key_created", "abc"))
    assert woken == []
    told(("job_queued", "batch"), ("alias_moved", "sst2@live"), ("job_queued", "tuning"))
    told(("job_queued", "batch"), ("tenant_resumed", ""))
    queued.forget()
    assert woken == [("batch", "tuning"), tuple(sorted(KINDS)), tuple(sorted(KINDS))]


def test_a_job_of_other_matrices_is_left(data_dir: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(data_dir, vocabulary) as api:
        left = queue(api.store)
        claimed = api.store.claim_job("evaluation", "other", 60, FINGERPRINT, "bfloat16")
        assert claimed is not None
        api.store.update_job(claimed[1], progress={"settled": {"matrix_dtype": "bfloat16"}})
        api.store.release_job(claimed[1])
        with working(api.services, Scoring()):
            taken = over(api.store, queue(api.store))
        assert taken.status == "succeeded" and api.store.get_job("default", left.id).status == "queued"


def test_a_cancelled_job_ends_at_once_and_leaves_no_request(
    data_dir: Path, vocabulary: Vocabulary, gate: Gate
) -> None:
    with gated_server(data_dir, vocabulary, gate) as api, working(api.services, Scoring()):
        gate.close()
        job = queue(api.store)
        assert gate.waiting.wait(300)
        api.store.cancel_job("default", job.id)
        assert over(api.store, job).status == "cancelled"
        gate.open.set()
        assert api.engine.wait_idle(300)


def test_a_stopped_process_gives_the_job_back_and_another_goes_on(
    data_dir: Path, vocabulary: Vocabulary, gate: Gate
) -> None:
    with gated_server(data_dir, vocabulary, gate) as api:
        whole = Scoring()
        with working(api.services, whole):
            expected = content(api.store, over(api.store, queue(api.store)))
        first, held = Scoring(), threading.Event()
        score = first.score

        async def third_waits(call: Call, texts: list[str]) -> bytes:
            if texts[0] == TEXTS[4]:
                gate.close()
                held.set()
            return await score(call, texts)

        first.score = third_waits  # type: ignore[method-assign]
        with working(api.services, first):
            job = queue(api.store)
            assert held.wait(300)
        given_back = api.store.get_job("default", job.id)
        assert given_back.status == "queued" and given_back.progress["rows"] == 4
        gate.open.set()
        second = Scoring()
        with working(api.services, second):
            done = over(api.store, job)
        assert done.status == "succeeded" and done.attempt == 2 and second.asked == [4, 6, 8]
        assert content(api.store, done) == expected


@pytest.mark.parametrize("at_once", [4, 1])
def test_a_tenants_long_job_does_not_hold_up_another_tenants(
    data_dir: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """The control runs one job at a time, as tuning does."""
    monkeypatch.setattr(jobs_wiring, "JOBS_AT_ONCE", at_once)
    long_ends = threading.Event()
    begun: list[str] = []

    def waits_first(attempt: EngineAttempt) -> Mapping[str, Any]:
        begun.append(attempt.job.id)
        if len(begun) == 1:
            while not long_ends.wait(0.01):
                attempt.held.check()
        return {}

    with ApiServer(data_dir, vocabulary) as api, working(api.services, waits_first):
        long, same = queue(api.store), queue(api.store)
        eventually(lambda: begun == [long.id])
        other = queue(api.store, "other")
        if at_once > 1:
            assert over(api.store, other).status == "succeeded"
            # Another look is over: without it the tenant's second job might only not have begun yet.
            assert over(api.store, queue(api.store, "third")).status == "succeeded"
        assert same.id not in begun and (other.id in begun) is (at_once > 1)
        long_ends.set()
        assert all(over(api.store, job).status == "succeeded" for job in (long, same, other))


class Frozen:
    """The store of a process that stands still: no lease is renewed."""

    def __init__(self, store: PromptStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def renew_lease(self, *_: Any) -> Any:
        raise StoreError("The process stands still.")


def test_a_process_that_wakes_up_too_late_writes_nothing(
    tmp_path: Path, vocabulary: Vocabulary, gate: Gate
) -> None:
    with (
        gated_server(tmp_path / "one", vocabulary, gate) as late,
        ApiServer(tmp_path / "two", vocabulary) as prompt,
    ):
        clock = FakeClock()
        store = PromptStore.open(tmp_path / "store", clock=clock)
        late.services.library.store = Frozen(store)  # type: ignore[assignment]
        prompt.services.library.store = store
        first, second = Scoring(), Scoring()
        with working(late.services, first):
            gate.close()
            job = queue(store)
            assert gate.waiting.wait(300)
            clock.advance(100)
            with working(prompt.services, second):
                done = over(store, job)
            assert done.status == "succeeded" and done.attempt == 2
            events, files = store.job_events("default", job.id), store.list_files("default").items
            gate.open.set()
            eventually(lambda: late.services.engine_jobs[0].running == ())
        assert first.asked == [0] and second.asked == [0, 2, 4, 6, 8]
        assert store.job_events("default", job.id) == events
        assert store.list_files("default").items == files and len(files) == 1
        store.close()


def test_a_job_waits_where_a_caller_is_refused(data_dir: Path, vocabulary: Vocabulary) -> None:
    """One request fits the queue, and one may be in flight for the tenant."""
    with ApiServer(data_dir, vocabulary, config={"max_queued_requests": 1}) as api:
        api.store.ensure_tenant("default")
        api.store.update_tenant("default", limits=TenantLimits.model_validate({"in_flight": {"requests": 1}}))
        api.services.callers.forget()
        refused = api.post("/v1/classify", {"task": None, "inputs": TEXTS[:2], "labels": LABELS})
        assert refused.status_code == 429, "the control: a caller is refused"
        with working(api.services, Scoring()):
            job = over(api.store, queue(api.store))
        assert job.status == "succeeded", job.error


def test_a_job_has_no_deadline(data_dir: Path, vocabulary: Vocabulary) -> None:
    """Not even that of requests which set none."""
    with ApiServer(data_dir, vocabulary, config={"default_deadline_seconds": 1e-9}) as api:
        with pytest.raises(DeadlineExceededError):  # the control
            api.engine.submit(ScoreRequest(Origin("one"), ((5, 1),), ((6, 1),))).wait(300)
        with working(api.services, Scoring()):
            job = over(api.store, queue(api.store))
        assert job.status == "succeeded", job.error


@pytest.mark.parametrize(
    ("limits", "rows"),
    [({"per_month": {"requests": {"hard": 3}}}, 2), ({"per_minute": {"tokens": 1}}, 0)],
    ids=["used up", "too small for one request"],
)
def test_a_limit_that_lets_nothing_through_ends_the_job(
    data_dir: Path, vocabulary: Vocabulary, limits: dict[str, Any], rows: int
) -> None:
    with ApiServer(data_dir, vocabulary) as api:
        api.store.ensure_tenant("default")
        api.store.update_tenant("default", limits=TenantLimits.model_validate(limits))
        api.services.callers.forget()
        with working(api.services, Scoring()):
            job = over(api.store, queue(api.store))
            assert job.status == "failed" and job.error is not None
            assert job.error["code"] == "limit_exceeded" and job.progress.get("rows", 0) == rows
            api.store.update_tenant("default", limits=TenantLimits())
            api.services.callers.forget()
            api.store.resume_job("default", job.id)
            assert over(api.store, job).status == "succeeded"
